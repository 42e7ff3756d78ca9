"""What is due follows from the stage and from what was done for it: late or interrupted, no step is skipped."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from dapi.broker.duties import Intention
from dapi.errors import StoreBusyError
from dapi.messages import Kind, State, epochs_pb2
from dapi.orchestration.stage_work import QUIET_SECONDS
from dapi.phases.duty import Duty
from dapi.phases.restart import RestartAdvice
from dapi.timing.loop import RESTART_SECONDS
from tests.unit.orchestration.conductor_case import (
    CONFIRMATION_START,
    EXCHANGE_END,
    GENERATION_END,
    LENGTH,
    START,
    TRIGGER,
    VALIDATION_END,
    VALIDATION_START,
    ConductorTestCase,
    head_at,
)


class PhaseTests(ConductorTestCase):
    def test_each_phase_has_its_duty(self) -> None:
        for height, duty in (
            (START + 60 - LENGTH + VALIDATION_END, Duty.INFERENCE),
            (START + LENGTH, Duty.GENERATE),
            (GENERATION_END + LENGTH - 1, Duty.GENERATE),
            (EXCHANGE_END + LENGTH - 2, Duty.VALIDATE),
            (VALIDATION_START + LENGTH, Duty.VALIDATE),
            (VALIDATION_END + LENGTH, Duty.INFERENCE),
        ):
            self.move(height + LENGTH)
            self.assert_duty(duty)

    def test_a_decision_is_made_at_one_height(self) -> None:
        self.move(START + 3)
        self.assertIn(("EpochInfo", START + 3), self.rpc.asked)
        self.assertIn(("block", START), self.rpc.asked)

    def test_missed_blocks_delay_and_skip_nothing(self) -> None:
        # Neither the start nor the end of generation nor the start of validation was seen.
        self.move(VALIDATION_START + 7)
        self.assert_duty(Duty.VALIDATE)
        (validation,) = self.validations
        self.assertEqual((validation.stage.height, validation.block_hash), (START, f"AB{START}"))
        self.assertEqual(self.state_of("seed-2"), State.STORED)

    def test_nothing_is_driven_while_the_chain_has_a_problem(self) -> None:
        self.watcher.problem = "catching up"
        for height in (START, VALIDATION_START, VALIDATION_END):
            self.move(height)
        self.assertEqual((self.rpc.asked, self.reconciler.intentions, self.validations), ([], {}, []))
        self.assertIs(self.phases.restart_advice().safe, False)
        self.watcher.problem = None
        self.move(VALIDATION_END + 1)
        self.assert_duty(Duty.INFERENCE)
        self.assertIs(self.phases.restart_advice().safe, True)

    def test_a_look_without_a_block(self) -> None:
        self.watcher.problem = "halted"
        self.move(START)
        self.watcher.problem = None
        self.clock.advance(30)
        self.assert_duty(Duty.GENERATE)

    def test_durations_that_are_governed_anew_in_the_middle_of_a_stage(self) -> None:
        self.move(START)

        def lengthen_generation(info: epochs_pb2.QueryEpochInfoResponse) -> None:
            info.params.epoch_params.poc_stage_duration += 10

        self.rpc.govern = lengthen_generation
        self.store("in the longer window")
        for height, duty in (
            (GENERATION_END + 9, Duty.GENERATE),
            (EXCHANGE_END + 8, Duty.VALIDATE),
            (VALIDATION_END + 9, Duty.VALIDATE),
            (VALIDATION_END + 10, Duty.INFERENCE),
        ):
            self.move(height)
            self.assert_duty(duty)
            still = State.STORED if height < EXCHANGE_END + 10 else State.EXPIRED
            self.assertEqual(self.state_of("in the longer window"), still)
        # It is the same stage, as far as the nodes are told.
        self.assertEqual([one.stage.height for one in self.validations], [START])
        self.assertEqual(set(self.broker.stages_begun), {START})

    def test_leaving_a_stage_ends_its_validation(self) -> None:
        self.move(VALIDATION_START)
        self.move(START + LENGTH)
        self.assertTrue(self.validations[0].is_stopped)
        self.assert_duty(Duty.GENERATE)
        self.assertEqual(self.reconciler.intentions["a"].block_hash, f"AB{START + LENGTH}")
        self.move(VALIDATION_START + LENGTH)
        self.assertEqual([one.stage.height for one in self.validations], [START, START + LENGTH])

    def test_node_count_is_that_of_its_beginning_after_a_restart_too(self) -> None:
        self.move(START)
        self.broker.node_count = 4
        self.restart()
        self.move(START + 1)
        self.assertEqual({intention.node_count for intention in self.reconciler.intentions.values()}, {3})

    def test_a_preserved_node_is_asked_of_the_epoch_in_force(self) -> None:
        # In the PoC of epoch 2 that is epoch 1, and in a confirmation of epoch 2 that one itself.
        self.rpc.preserved = {1: ["b"], 2: ["a"]}
        self.move(START)
        self.assertEqual(self.duties(), [Duty.GENERATE, Duty.INFERENCE])
        self.move(VALIDATION_START)
        self.assertEqual(self.duties(), [Duty.VALIDATE, Duty.INFERENCE])
        self.rpc.seed_hash = "ab" * 32
        self.move(CONFIRMATION_START)
        self.assertEqual(self.duties(), [Duty.INFERENCE, Duty.GENERATE])

    def test_anothers_node_of_the_same_id_is_told_of_in_each_stage(self) -> None:
        # Ours are 'a', which stays in inference itself, and 'b', whose batches the chain drops in silence.
        self.rpc.preserved, self.rpc.preserved_of_another = {1: ["a"], 2: ["a"]}, {1: ["a", "b", "c"], 2: ["b"]}
        for start in (START, START + LENGTH):
            for height in (start, start + 1, start + VALIDATION_START - START):
                self.move(height)
                (warning,) = self.told()
                self.assertIn("b: another participant's node of this id", warning)
            self.assertEqual(self.duties(), [Duty.INFERENCE, Duty.VALIDATE])
            self.move(start + VALIDATION_END - START)
            self.assertEqual(self.told(), [])

    def test_the_delivery_that_was_waited_for(self) -> None:
        self.move(GENERATION_END)
        self.assert_duty(Duty.GENERATE)
        asked = len(self.rpc.asked)
        for batch_id in ("first", "last"):
            self.broker.workers()[1].batch_handler.counts.stored += 1
            self.store(batch_id)
            self.clock.advance(QUIET_SECONDS - 0.1)
            self.assert_duty(Duty.GENERATE)
        self.clock.advance(0.1)
        self.assertEqual(self.duties(), [Duty.GENERATE, Duty.VALIDATE])
        self.assertEqual(len(self.rpc.asked), asked)

    def test_a_delivery_in_the_middle_of_a_turn_takes_back_nothing(self) -> None:
        self.move(GENERATION_END)
        never: Deferred[dict[object, str]] = Deferred()
        self.patch(self.deadlines, "check", lambda height: never)
        # The nodes are told to validate, and the turn goes on.
        self.move(VALIDATION_START)
        self.store("late")
        self.assert_duty(Duty.VALIDATE)

    def test_what_was_refused_or_came_before_is_not_the_delivery_that_was_waited_for(self) -> None:
        self.move(GENERATION_END)
        refused, doubled = (worker.batch_handler.counts for worker in self.broker.workers())
        refused.generated, refused.not_stored = 1, 1
        doubled.generated, doubled.doubled = 1, 1
        self.move(GENERATION_END + 1)
        self.clock.advance(QUIET_SECONDS)
        self.assert_duty(Duty.GENERATE)

    def test_a_silent_node_is_stopped_and_then_validates_again(self) -> None:
        self.move(VALIDATION_START)
        self.validations[0].silent("b")
        self.clock.advance(0)
        self.assertEqual(self.duties(), [Duty.VALIDATE, Duty.STOPPED])
        self.reconciler.stopped = ["b"]
        self.move(VALIDATION_START + 1)
        self.assert_duty(Duty.VALIDATE)


class FailureTests(ConductorTestCase):
    def test_each_failed_query_delays_what_needs_it(self) -> None:
        for number, name in enumerate(("EpochInfo", "block", "EpochGroupData"), start=1):
            start = START + number * LENGTH
            self.rpc.failing = {name}
            self.move(start)
            self.assertNotEqual(self.reconciler.intentions.get("a", Intention(Duty.STOPPED)).block_height, start)
            self.assertIn(name, self.phases.status()["problem"])
            self.rpc.failing = set()
            self.retry()
            self.assert_duty(Duty.GENERATE)
            self.assertEqual(self.reconciler.intentions["a"].block_height, start)
            self.assertIsNone(self.phases.status()["problem"])

    def test_without_the_nodes_that_stay_in_inference_all_take_part_in_the_end(self) -> None:
        self.rpc.preserved = {1: ["a"]}
        self.rpc.failing = {"EpochGroupData"}
        for height in range(START, START + 15):
            self.move(height)
            self.assertEqual(self.reconciler.intentions, {})
        for height in range(START + 15, START + 18):
            self.move(height)
            self.retry()
            self.assert_duty(Duty.GENERATE)
        text = "stage 100: which nodes stay in inference is not known, so all take part: /inference.inference.Query"
        self.assertTrue(self.told()[0].startswith(text))
        # As soon as the chain tells, it is followed.
        self.rpc.failing = set()
        self.move(START + 18)
        self.assertEqual(self.duties(), [Duty.INFERENCE, Duty.GENERATE])
        self.assertEqual(self.told(), [])

    def test_a_chain_that_does_not_tell_them_at_all(self) -> None:
        self.rpc.unknown = {"EpochGroupData"}
        self.move(START)
        self.assert_duty(Duty.GENERATE)
        self.move(VALIDATION_START)
        self.assert_duty(Duty.VALIDATE)
        self.assertEqual(len(self.told()), 1)

    def test_a_query_that_fails_at_the_start_of_validation(self) -> None:
        self.move(VALIDATION_START - 1)
        self.rpc.failing = {"EpochInfo"}
        self.move(VALIDATION_START)
        self.assertEqual(self.validations, [])
        self.rpc.failing = set()
        self.watcher.move(head_at(VALIDATION_START + 1))
        self.retry()
        self.assertEqual(len(self.validations), 1)

    def test_a_database_that_is_busy(self) -> None:
        self.database.failure = StoreBusyError("the disk is full")
        self.move(START)
        self.assertEqual(self.reconciler.intentions, {})
        self.database.failure = None
        self.retry()
        self.assert_duty(Duty.GENERATE)
        self.assertEqual(self.state_of("seed-2"), State.STORED)

    def test_a_full_disk_keeps_no_node_from_its_duty(self) -> None:
        self.move(START - LENGTH + VALIDATION_END)
        self.database.refusal = StoreBusyError("the disk is full")
        seed = "the seed of epoch 2 is not kept yet: the disk is full; without its seed the stage counts nothing"
        for height, duty in ((START, Duty.GENERATE), (VALIDATION_START, Duty.VALIDATE)):
            self.move(height)
            self.assert_duty(duty)
            self.assertEqual(self.told(), [seed])
        self.database.refusal = None
        self.move(VALIDATION_START + 1)
        self.assertEqual(self.state_of("seed-2"), State.STORED)
        self.assertEqual(self.told(), [])

    def test_a_warning_of_a_seed_ends_with_its_stage(self) -> None:
        self.database.refusal = StoreBusyError("the disk is full")
        self.move(START)
        self.move(VALIDATION_END)
        self.assertEqual(self.told(), [])

    def test_stopped_while_it_waits_to_try_again(self) -> None:
        self.rpc.failing = {"EpochInfo"}
        self.move(START)
        # The cleanup sees that nothing is left of it.
        self.assertTrue(self.clock.getDelayedCalls())

    def test_a_problem_of_the_chain_itself_is_told_first(self) -> None:
        self.rpc.failing = {"EpochInfo"}
        self.move(START)
        self.watcher.problem = "not reachable"
        self.retry()
        self.assertEqual(self.phases.status()["problem"], "not reachable")

    def test_the_same_problem_is_logged_once(self) -> None:
        self.rpc.failing = {"EpochInfo"}
        self.move(START)
        for _ in range(4):
            self.retry()
        self.assertEqual(len(self.lines()), 1)

    def test_a_defect_of_ours_is_seen_in_the_status_and_does_not_end_it(self) -> None:
        patch = self.patch(self.broker, "workers", None)
        self.move(START)
        self.assertIn("Conductor broke", self.phases.status()["problem"])
        self.assertFalse(self.phases.restart_advice().safe)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        patch.restore()
        self.clock.advance(RESTART_SECONDS)
        self.assert_duty(Duty.GENERATE)
        self.assertIsNone(self.phases.status()["problem"])


class ConfirmationTests(ConductorTestCase):
    def test_not_before_its_seed_is_there(self) -> None:
        self.move(TRIGGER)
        self.rpc.seed_hash = ""
        self.move(CONFIRMATION_START - 1)
        self.move(CONFIRMATION_START)
        self.assert_duty(Duty.INFERENCE)
        self.rpc.seed_hash = "ab" * 32
        self.move(CONFIRMATION_START + 1)
        self.assert_duty(Duty.GENERATE)
        intention = self.reconciler.intentions["a"]
        self.assertEqual((intention.block_height, intention.block_hash), (TRIGGER, "ab" * 32))
        self.assertEqual(self.situation().stage_height, TRIGGER)

    def test_it_submits_no_seed_of_its_own(self) -> None:
        self.rpc.seed_hash = "ab" * 32
        self.move(CONFIRMATION_START)
        self.assertEqual(self.successResultOf(self.outbox.batches(kind=Kind.SEED)).batches, [])

    def test_its_messages_expire_when_the_chain_tells_of_it_no_more(self) -> None:
        self.rpc.seed_hash = "ab" * 32
        self.move(CONFIRMATION_START)
        self.store("late", TRIGGER)
        self.rpc.seed_hash = None
        self.restart()
        self.move(CONFIRMATION_START + 90)
        self.assertEqual(self.state_of("late"), State.EXPIRED)


class DoneTests(ConductorTestCase):
    """What was done for a stage is not done again, and what was not is."""

    def test_one_seed_for_each_epoch_over_restarts(self) -> None:
        for height in (START, START + 1, START + LENGTH, START + LENGTH + 1):
            self.move(height)
            self.restart()
            self.move(height)
        seeds = self.successResultOf(self.outbox.batches(kind=Kind.SEED)).batches
        self.assertEqual(sorted(row.batch_id for row in seeds), ["seed-2", "seed-3"])

    def test_the_block_hash_is_not_asked_for_again_after_a_restart(self) -> None:
        self.move(START)
        # A chain node that was pruned does not have the block any more.
        self.rpc.failing.add("block")
        self.restart()
        self.move(START + 1)
        self.assertEqual({each.block_hash for each in self.reconciler.intentions.values()}, {f"AB{START}"})

    def test_a_validation_that_was_cut_short_is_taken_up_again(self) -> None:
        self.move(VALIDATION_START)
        self.restart()
        self.move(VALIDATION_START + 1)
        self.assertEqual(len(self.validations), 1)

    def test_a_validation_that_is_over_is_not(self) -> None:
        self.move(VALIDATION_START)
        self.validations[0].end()
        self.restart()
        self.move(VALIDATION_START + 1)
        self.assertEqual(self.validations, [])
        self.assert_duty(Duty.VALIDATE)


class PocV2Tests(ConductorTestCase):
    """A network with PoC v2: docs/protocol/chain.md, 'Newer chains'."""

    def run_v2(self) -> None:
        def enable(info: epochs_pb2.QueryEpochInfoResponse) -> None:
            info.params.poc_params.poc_v2_enabled = True

        self.rpc.govern = enable

    def test_no_node_gets_a_duty_and_nothing_is_stored_in_any_phase(self) -> None:
        self.run_v2()
        for height in (START, GENERATION_END, VALIDATION_START, VALIDATION_END, START + LENGTH):
            self.move(height)
            self.assertEqual((self.reconciler.intentions, self.validations), ({}, []))
        self.assertEqual({name for name, _ in self.rpc.asked}, {"EpochInfo"})
        self.assertEqual(self.successResultOf(self.outbox.batches(kind=Kind.SEED)).batches, [])
        self.assertEqual(self.successResultOf(self.stages.latest()), [])
        self.assertIn("the network has moved to PoC v2", str(self.phases.status()["problem"]))
        self.assertEqual(self.phases.restart_advice(), RestartAdvice(True), "there is nothing that it would disturb")
        self.assertFalse(self.phases.runs_v1)
        self.watcher.problem = "no block"
        self.assertFalse(self.phases.restart_advice().safe, "it may have moved back")

    def test_a_stage_that_is_under_way_is_left_and_taken_up_again(self) -> None:
        self.move(VALIDATION_START)
        self.assert_duty(Duty.VALIDATE)
        self.run_v2()
        self.move(VALIDATION_START + 1)
        self.assertEqual(self.reconciler.intentions, {})
        self.assertTrue(self.validations[0].is_stopped)
        self.rpc.govern = lambda info: None
        self.move(VALIDATION_START + 2)
        self.assert_duty(Duty.VALIDATE)
        self.assertIs(self.phases.status()["problem"], None)
        self.assertTrue(self.phases.runs_v1)

    def test_a_refusal_that_the_submitter_meets_is_heeded_without_a_block(self) -> None:
        self.move(START)
        self.assert_duty(Duty.GENERATE)
        self.poc_version.refused("inference 1161: deprecated")
        self.clock.advance(0)
        self.assertEqual(self.reconciler.intentions, {})
