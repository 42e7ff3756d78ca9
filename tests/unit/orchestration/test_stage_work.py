"""What each node should do in a stage follows from the height, its number and its deliveries."""

from __future__ import annotations

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.duties import Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node
from dapi.orchestration.stage_work import QUIET_SECONDS, StageWork
from dapi.orchestration.stages import StageRecord
from dapi.phases.duty import Duty
from dapi.phases.phases import EpochParameters, regular_stage
from dapi.phases.stage_queries import PreservedNodes
from tests.nodes import StubNode, make_worker, node_config

START = 100
# As on the main network: between the end of generation and the switch there is time.
STAGE = regular_stage(EpochParameters(17280, 60, 5, 5, 20), 7, START)
GENERATION_END = START + 60


def worker(node_id: str, num: int) -> NodeWorker:
    return make_worker(Clock(), Node(node_config(node_id), num), StubNode())


def work_of(duty: Duty) -> Intention:
    return Intention(duty, block_height=START, block_hash="AB", public_key="02aa", node_count=3)


class StageWorkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.workers = [worker("a", 1), worker("b", 2)]
        preserved = PreservedNodes(own=frozenset({"kept"}), others=frozenset({"b", "kept", "later", "another"}))
        self.work = StageWork(StageRecord(STAGE, 3, False), "AB", "02aa", preserved)
        self.now = 1000.0

    def duties(self, height: int, *more: NodeWorker) -> list[Duty]:
        intentions = self.work.intentions([*self.workers, *more], height, self.now)
        return [intention.duty for intention in intentions.values()]

    def test_all_generate_and_then_all_validate(self) -> None:
        for height in (START, GENERATION_END - 1):
            intentions = self.work.intentions(self.workers, height, self.now)
            self.assertEqual(intentions, {"a": work_of(Duty.GENERATE), "b": work_of(Duty.GENERATE)})
        for height in (GENERATION_END + 3, STAGE.inference_from - 1):
            intentions = self.work.intentions(self.workers, height, self.now)
            self.assertEqual(intentions, {"a": work_of(Duty.VALIDATE), "b": work_of(Duty.VALIDATE)})

    def test_each_switches_after_its_own_delivery(self) -> None:
        first, second = (worker.batch_handler.counts for worker in self.workers)
        first.stored = 5
        self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.GENERATE])
        second.stored = 1
        self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.GENERATE])
        self.now += QUIET_SECONDS
        self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.VALIDATE])
        first.stored = 6
        self.assertEqual(self.duties(GENERATION_END + 1), [Duty.GENERATE, Duty.VALIDATE])
        self.now += QUIET_SECONDS
        self.assertEqual(self.duties(GENERATION_END + 1), [Duty.VALIDATE, Duty.VALIDATE])

    def test_one_with_more_to_bring_is_waited_for_but_never_called_back(self) -> None:
        _, counts = (worker.batch_handler.counts for worker in self.workers)
        self.duties(GENERATION_END)
        for _ in range(3):
            counts.stored += 1
            self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.GENERATE])
            self.now += QUIET_SECONDS - 0.1
            self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.GENERATE])
        self.now += 0.1
        self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.VALIDATE])
        counts.stored += 1
        self.assertEqual(self.duties(GENERATION_END), [Duty.GENERATE, Duty.VALIDATE])

    def test_who_came_later_or_is_preserved_serves_inference(self) -> None:
        later, kept = worker("later", 3), worker("kept", 0)
        duties = self.duties(START, later, kept)
        self.assertEqual(duties, [Duty.GENERATE, Duty.GENERATE, Duty.INFERENCE, Duty.INFERENCE])

    def test_a_node_whose_batches_the_chain_drops_for_anothers_node_of_its_id(self) -> None:
        nodes = [each.node for each in (*self.workers, worker("later", 3), worker("kept", 0))]
        self.assertEqual(self.work.nodes_in_vain(nodes), ["b"])
        nodes[1] = msgspec.structs.replace(nodes[1], enabled=False)
        self.assertEqual(self.work.nodes_in_vain(nodes), [])

    def test_a_silent_node_is_stopped_once(self) -> None:
        height = STAGE.validation_start
        self.work.stop_once("b")
        self.assertEqual(self.duties(height), [Duty.VALIDATE, Duty.STOPPED])
        self.work.record_stop("a")
        self.assertEqual(self.duties(height), [Duty.VALIDATE, Duty.STOPPED])
        self.work.record_stop("b")
        self.assertEqual(self.duties(height), [Duty.VALIDATE, Duty.VALIDATE])
