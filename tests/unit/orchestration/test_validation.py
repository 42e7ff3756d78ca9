"""A stage's validation, from the query for its batches to the last verdict on them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from dapi.errors import ChainRefusedError, ChainUnavailableError, StoreBusyError
from dapi.orchestration.samples import Sampler
from dapi.orchestration.validation import ValidationState
from tests.stage_answers import encode_stage, stored
from tests.unit.orchestration.validation_case import END, HEX, KEYS, STAGE, START, ValidationTestCase


class CourseTests(ValidationTestCase):
    """From the query to the last answer."""

    def test_all_are_handed_out_and_answered(self) -> None:
        self.participants(0, 1, 2)
        self.add_nodes("a", "b")
        self.start()
        self.assertEqual(sorted(self.nodes["a"].took + self.nodes["b"].took), [0, 1, 2])
        self.assertEqual(self.shown("participants", "handed", "answered", "unanswered", "waiting"), [3, 3, 0, 3, 0])
        self.answer(0, 1)
        self.assert_goes_on()
        self.assertEqual(self.shown("answered", "unanswered", "problem"), [2, 1, None])
        self.answer(2)
        self.assert_over()
        self.assertEqual(self.shown("answered", "unanswered"), [3, 0])

    def test_it_is_on_disk_who_is_handed_out_before_a_node_is_asked(self) -> None:
        self.participants(0, 1, 2)
        self.add_nodes("a", "b")
        self.disk = Deferred()
        self.start()
        offered = [(STAGE.height, KEYS[index].address, node_id) for index, node_id in enumerate("aba")]
        self.assertEqual(sorted(self.handed_out), sorted(offered))
        self.wait(5)
        self.assertEqual((self.nodes["a"].asked, self.nodes["b"].asked, len(self.handed_out)), (0, 0, 3))
        self.disk.callback(None)
        self.assertEqual((len(self.nodes["a"].took), len(self.nodes["b"].took)), (2, 1))

    def test_a_disk_that_cannot_keep_that_now(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.disk = fail(StoreBusyError("the disk is full"))
        self.start()
        self.assertEqual(self.nodes["a"].asked, 0)
        warning = "1 participants cannot be handed out now: the disk is full"
        self.assertEqual(self.log.warnings(), [warning])
        self.disk = None
        self.wait(8)
        self.assertEqual(self.nodes["a"].took, [0])

    def test_a_disk_that_cannot_keep_that_it_is_over(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.stages.end_failure = StoreBusyError("the disk is full")
        self.start()
        self.answer(0)
        self.assert_over()
        warning = f"that the validation of stage {STAGE.height} is over is not on disk: the disk is full"
        self.assertEqual(self.log.warnings(), [warning])

    def test_the_window_ends_while_that_is_written(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.disk = Deferred()
        self.start()
        self.height = END
        self.wait(2)
        self.assert_over()
        self.assertEqual(self.nodes["a"].asked, 0)

    def test_nodes_take_turns(self) -> None:
        self.participants(*range(9))
        self.add_nodes("a", "b", "c")
        self.start()
        self.assertEqual([len(node.took) for node in self.nodes.values()], [3, 3, 3])
        nodes = self.shown("nodes")[0]
        self.assertEqual({name: node["unanswered"] for name, node in nodes.items()}, {"a": 3, "b": 3, "c": 3})

    def test_two_calls_to_a_node_at_once(self) -> None:
        self.participants(*range(5))
        self.add_nodes("a")
        self.nodes["a"].hangs = True
        self.start()
        self.assertEqual(self.nodes["a"].asked, 2)
        self.nodes["a"].calls[0].callback(None)
        self.assertEqual(self.nodes["a"].asked, 3)

    def test_the_window_ends(self) -> None:
        self.participants(0, 1)
        self.add_nodes("a")
        self.start()
        self.height = END - 1
        self.wait(3)
        self.answer(0)
        self.assert_goes_on()
        self.height = END
        self.wait(1)
        self.assert_over()
        self.assertEqual(self.shown("unanswered"), [1])
        reason = "1 were not answered by a"
        warning = f"the window of stage 10 ended with 1 of 2 participants unanswered: {reason}"
        self.assertEqual(self.log.warnings(), [warning])

    def test_the_window_ends_before_the_batches_were_had(self) -> None:
        self.found = ChainUnavailableError("no route")
        self.start()
        self.height = END
        self.wait(5)
        self.assert_over()
        warning = "the window of stage 10 ended with 0 of 0 participants unanswered: no route"
        self.assertEqual(self.log.warnings("the window"), [warning])

    def test_stopped_when_the_window_has_ended(self) -> None:
        self.participants(0)
        self.start()
        self.height = END
        self.validation.stop()
        self.assert_over()
        self.assertEqual(self.stages.finished, [STAGE.height])
        self.assertEqual(len(self.log.warnings("1 of 1 participants unanswered: 1 waited for a node")), 1)

    def test_a_stage_without_batches(self) -> None:
        self.start()
        self.wait(1)
        self.assert_over()

    def test_stop_while_all_is_under_way(self) -> None:
        self.participants(0, 1, 2)
        self.add_nodes("a")
        self.nodes["a"].hangs = True
        self.start()
        self.validation.stop()
        self.assert_over()
        self.assertEqual(self.nodes["a"].asked, 2)
        self.assertEqual(self.log.warnings(), [])

    def test_stop_while_the_batches_are_queried(self) -> None:
        self.found = Deferred()
        self.start()
        self.validation.stop()
        self.assert_over()

    def test_what_breaks_a_node_is_not_handed_out(self) -> None:
        self.found = [stored(KEYS[0], ([1, 2], [0.5, 1.45]), ([1], [])), stored(KEYS[1])]
        self.add_nodes("a")
        self.start()
        self.assertEqual(self.nodes["a"].took, [0])
        (dropped,) = self.shown("dropped")
        self.assertEqual((dropped.nonces, dropped.batches, dropped.participants), (1, 1, 1))


class StateTests(ValidationTestCase):
    """Every transition that is drawn, and what the stage's record says at the end."""

    def setUp(self) -> None:
        super().setUp()
        self.found = Deferred()
        self.start()
        self.assert_state(ValidationState.QUERYING)

    def learn(self) -> None:
        """Have the batches come, of one participant."""
        assert isinstance(self.found, Deferred)
        sampler = Sampler(self.validation._sampling)
        sampler.feed(encode_stage([stored(KEYS[0], ([1], [0.5]))]))
        self.found.callback(sampler.finish())
        self.wait(1)

    def assert_state(self, state: ValidationState) -> None:
        self.assertIs(self.validation._state, state)
        is_over = state in (ValidationState.OVER, ValidationState.STOPPED)
        self.assertEqual(self.shown("is_over"), [is_over])
        self.assertEqual(self.stages.finished, [STAGE.height] if state is ValidationState.OVER else [])

    def test_all_are_known_and_answered(self) -> None:
        self.learn()
        self.assert_state(ValidationState.COMPLETE)
        self.answer(0)
        self.assert_state(ValidationState.OVER)

    def test_the_window_ends_before_all_are_known_or_answered(self) -> None:
        for is_known in (False, True):
            if is_known:
                self.learn()
            self.height = END
            self.wait(1)
            self.assert_state(ValidationState.OVER)
            self.stages.finished.clear()
            self.height, self.found = START, Deferred()
            self.start()

    def test_stopped_at_any_time(self) -> None:
        self.validation.stop()
        self.assert_state(ValidationState.STOPPED)
        self.found = Deferred()
        self.start()
        self.learn()
        self.validation.stop()
        self.assert_state(ValidationState.STOPPED)
        self.assert_over()

    def test_nothing_comes_after_the_end(self) -> None:
        self.height = END
        self.wait(1)
        self.validation.stop()
        self.assert_state(ValidationState.OVER)
        self.wait(10)
        self.assert_state(ValidationState.OVER)


class AnswerTests(ValidationTestCase):
    """Verdicts that come."""

    def setUp(self) -> None:
        super().setUp()
        self.participants(0, 1)
        self.add_nodes("a")

    def test_a_verdict_counts_once(self) -> None:
        self.start()
        self.answer(0, 0)
        self.assertEqual(self.shown("answered"), [1])
        self.assertEqual(self.shown("nodes")[0]["a"]["answered"], 1)

    def test_verdicts_of_other_stages_and_strangers(self) -> None:
        self.start()
        self.validation.record_verdict(HEX[0], STAGE.height + 1)
        self.answer(7)
        self.assertEqual(self.shown("answered", "unanswered"), [0, 2])

    def test_a_verdict_that_comes_before_the_nodes_ok(self) -> None:
        self.nodes["a"].hangs = True
        self.start()
        self.answer(0)
        self.nodes["a"].calls[0].callback(None)
        self.assertEqual(self.shown("nodes")[0]["a"]["unanswered"], 0)
        self.assertEqual(self.shown("answered"), [1])

    def test_who_was_answered_before_a_restart_is_left_alone(self) -> None:
        self.stages.answered = {KEYS[0].address}
        self.start()
        self.assertEqual(self.nodes["a"].took, [1])
        self.assertEqual(self.shown("participants", "answered"), [2, 1])
        self.answer(1)
        self.assert_over()

    def test_all_answered_before_a_restart(self) -> None:
        self.stages.answered = {key.address for key in KEYS[:2]}
        self.start()
        self.assert_over()
        self.assertEqual(self.nodes["a"].took, [])


class QueryTests(ValidationTestCase):
    """The batches are had as soon as they can be."""

    def test_once_at_the_height_of_now(self) -> None:
        self.participants(0)
        self.start()
        self.height += 5
        self.wait(20)
        self.assertEqual(self.queried, [START])

    def test_not_before_the_last_batch_can_be_there(self) -> None:
        self.height = STAGE.batches.last - 1
        self.start()
        self.wait(3)
        self.assertEqual(self.queried, [])
        self.height += 1
        self.wait(1)
        self.assertEqual(self.queried, [STAGE.batches.last])

    def test_a_chain_that_cannot_be_asked(self) -> None:
        self.add_nodes("a")
        for error in (ChainUnavailableError("no route"), ChainRefusedError(6, "sdk", "unknown query path")):
            self.found = error
            self.start()
            self.assertEqual(self.shown("problem"), [str(error)])
            self.wait(2.5)
            self.assertEqual(len(self.queried), 1)
            self.participants(0)
            self.wait(2.5)
            self.assertEqual(len(self.queried), 2)
            self.assertEqual(self.shown("problem", "handed"), [None, 1])
            self.end()
            self.queried.clear()

    def test_a_database_that_cannot_be_asked(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.stages.failure = StoreBusyError("the disk is full")
        self.start()
        self.assertEqual(self.shown("problem"), ["the disk is full"])
        self.stages.failure = None
        self.wait(5)
        self.assertEqual((self.shown("problem"), self.nodes["a"].took), ([None], [0]))

    def test_whatever_breaks_it_is_tried_again(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.stages.failure = ValueError("nobody foresaw this")
        self.start()
        self.wait(30)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.shown("problem", "is_failing"), ["ValueError: nobody foresaw this", True])
        self.stages.failure = None
        self.wait(5)
        self.assertEqual((self.shown("problem"), self.nodes["a"].took), ([None], [0]))

    def test_an_old_refusal_is_told_once(self) -> None:
        self.found = ChainUnavailableError("no route")
        self.start()
        self.wait(30)
        self.assertGreater(len(self.queried), 5)
        self.assertEqual(len(self.log.warnings()), 1)
