"""What the network wants models to be started with is known before a node begins to serve."""

from __future__ import annotations

import msgspec

from dapi.broker.nodes import ModelConfig
from dapi.phases.duty import Duty
from tests.unit.orchestration.conductor_case import LENGTH, START, VALIDATION_END, ConductorTestCase

QUIET = START + 2 * LENGTH + VALIDATION_END


class ModelArgumentsTests(ConductorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = next(iter(self.broker.nodes()[0].config.models))
        self.rpc.model_args = {self.model: [b"--quantization", b"\xff"], "of others": [b"--x"]}

    def asked_at(self) -> set[int | None]:
        """The heights at which groups were asked for; None: for the nodes that stay in inference."""
        return {height for name, height in self.rpc.asked if name == "EpochGroupData"}

    def test_they_are_asked_for_before_nodes_serve_and_every_10_blocks(self) -> None:
        for height in range(QUIET, QUIET + 11):
            self.move(height)
            self.assert_duty(Duty.INFERENCE)
        self.assertEqual(self.arguments.by_model, {self.model: ("--quantization", "\ufffd")})
        self.assertEqual(self.asked_at(), {QUIET, QUIET + 10})
        # Of the latest epoch, which has its groups since its validation has ended.
        self.assertEqual(self.rpc.epochs_asked, {4})

    def test_in_poc_they_are_asked_for_only_if_nothing_is_known(self) -> None:
        self.move(QUIET)
        self.rpc.asked.clear()
        self.move(START + 3 * LENGTH)
        self.assertEqual(self.asked_at(), {None})
        self.rpc.asked.clear()
        self.restart()
        self.assertEqual(self.asked_at(), {None, START + 3 * LENGTH})
        # Of the epoch before: the latest one has no groups yet.
        self.assertEqual(self.rpc.epochs_asked, {4})

    def test_nodes_wait_for_the_answer_for_5_blocks(self) -> None:
        self.rpc.failing = {"EpochGroupData"}
        for height in range(QUIET, QUIET + 5):
            self.move(height)
            self.clock.advance(5)
            self.assertEqual(self.reconciler.intentions, {})
        self.move(QUIET + 5)
        self.clock.advance(5)
        self.assert_duty(Duty.INFERENCE)
        text = "what the network wants models to be started with is not known"
        self.assertEqual(len(self.log.warnings(text)), 1)
        self.rpc.failing = set()
        self.move(QUIET + 15)
        self.assertEqual(set(self.arguments.by_model), {self.model})

    def test_in_poc_nobody_waits_for_it(self) -> None:
        self.rpc.failing = {"EpochGroupData"}
        self.move(START + 20)
        self.assert_duty(Duty.GENERATE)

    def test_a_chain_that_cannot_tell_keeps_no_node_waiting(self) -> None:
        self.rpc.unknown = {"EpochGroupData"}
        self.move(QUIET)
        self.assert_duty(Duty.INFERENCE)
        self.assertEqual(self.arguments.by_model, {})

    def test_a_model_that_nobody_had_before_is_asked_for_at_once(self) -> None:
        self.move(QUIET)
        self.rpc.model_args["new"] = [b"--new"]
        self.rpc.failing = {"EpochGroupData"}
        worker = self.broker.workers()[0]
        config = msgspec.structs.replace(worker.node.config, models={"new": ModelConfig()})
        worker.node = msgspec.structs.replace(worker.node, config=config)
        self.reconciler.intentions = {}
        self.move(QUIET + 1)
        self.assertEqual(self.reconciler.intentions, {})
        self.rpc.failing = set()
        self.retry()
        self.assert_duty(Duty.INFERENCE)
        self.assertEqual(self.arguments.by_model["new"], ("--new",))

    def test_what_is_not_known_when_a_poc_ends_is_asked_for_then(self) -> None:
        self.rpc.failing = {"EpochGroupData"}
        self.move(VALIDATION_END - 1)
        self.assert_duty(Duty.VALIDATE)
        self.rpc.failing = set()
        self.move(VALIDATION_END)
        self.assert_duty(Duty.INFERENCE)
        self.assertEqual(set(self.arguments.by_model), {self.model})

    def test_what_is_known_stays_when_it_cannot_be_asked_anew(self) -> None:
        self.move(QUIET)
        self.rpc.failing = {"EpochGroupData"}
        self.move(QUIET + 10)
        self.assert_duty(Duty.INFERENCE)
        self.assertEqual(set(self.arguments.by_model), {self.model})
