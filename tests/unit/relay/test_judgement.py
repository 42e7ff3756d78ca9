"""The table of answers, the states of a payload, and what a count says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.answers import Meaning, judge
from dapi.relay.api_answers import (
    ApiAnswerError,
    StageKind,
    StageWindow,
    read_count,
    read_epochs,
    read_nodes,
    read_start_time,
)
from dapi.relay.facts import Facts, Target
from dapi.relay.payload import TRANSITIONS, Payload, PayloadState, Place
from dapi.relay.queue import PayloadQueue
from dapi.relay.stage_ledger import StageLedger


def payload(seq: int, *, model: str = "m", node_num: int = 1, kind: str = "generated") -> Payload:
    facts = Facts(5, node_num, range(seq, seq + 1))
    return Payload(seq, Place(f"{seq}.body", 0), b"/", (), 1, 0.0, Target(model, kind), facts)


class AnswerTests(SynchronousTestCase):
    def test_the_table(self) -> None:
        """docs/protocol/poc-v2.md, 'Answers'."""
        for status, body, meaning in (
            (200, b"", Meaning.TAKEN),
            (204, b"", Meaning.TAKEN),
            (200, b"<html>", Meaning.MISROUTED),
            (503, b'{"error":"not in PoC generate phase"}', Meaning.CLOSED),
            (503, b'{"error":"not in PoC validate phase"}', Meaning.CLOSED),
            (503, b'{"error":"failed to store artifacts"}', Meaning.AGAIN),
            (503, b"", Meaning.AGAIN),
            (500, b'{"error":"hand-over failed"}', Meaning.AGAIN),
            (400, b'{"error":"block_height is not the active PoC stage"}', Meaning.CLOSED),
            (400, b'{"error":"unknown node_num"}', Meaning.UNKNOWN_NODE),
            (400, b'{"error":{"message":"Unsupported Media Type"}}', Meaning.NEVER),
            (400, b'{"error":"empty artifact vector"}', Meaning.NEVER),
            (413, b"", Meaning.NEVER),
            (415, b"", Meaning.NEVER),
            (422, b"", Meaning.NEVER),
            *((status, b"", Meaning.AWAY) for status in (408, 429, 502, 504)),
            *((status, b"", Meaning.MISROUTED) for status in (301, 302, 307, 401, 403, 404, 405)),
        ):
            self.assertIs(judge(status, body, is_callback=True).meaning, meaning, (status, body))
        self.assertIs(judge(200, b"anything", is_callback=False).meaning, Meaning.TAKEN)

    def test_junk_is_cut_and_breaks_no_line(self) -> None:
        reason = judge(500, b"\x00\n" * 100_000, is_callback=True).reason
        self.assertLess(len(reason), 300)
        self.assertNotIn("\n", reason)


class StateTests(SynchronousTestCase):
    def test_each_transition_that_is_drawn_and_no_other(self) -> None:
        for state in PayloadState:
            for goal in PayloadState:
                each = payload(1)
                each.state = state
                if goal in TRANSITIONS[state]:
                    each.turn(goal, "why")
                    self.assertEqual((each.state, each.reason), (goal, "why"))
                else:
                    with self.assertRaises(RuntimeError):
                        each.turn(goal)


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = StageLedger()

    def send(self, nonces: range) -> int:
        self.ledger.sending(nonces)
        return self.ledger.took(nonces)

    def test_settled_when_all_is_counted(self) -> None:
        rank = self.send(range(10))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 9)[:2], (0, False))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 10)[:2], (rank, False))

    def test_while_more_comes_each_time_the_container_has_written(self) -> None:
        first = self.send(range(10))
        mark = self.ledger.mark()
        self.ledger.read(mark, 0)
        self.send(range(10, 20))
        # It has written since the question before, so all that was taken before that one has to be in.
        self.assertEqual(self.ledger.read(self.ledger.mark(), 15)[:2], (first, False))

    def test_it_has_written_without_what_it_lost(self) -> None:
        first = self.send(range(10))
        self.ledger.read(self.ledger.mark(), 0)
        self.send(range(10, 20))
        self.ledger.read(self.ledger.mark(), 0)
        # It has kept what came last.
        reading = self.ledger.read(self.ledger.mark(), 5)
        self.assertEqual((reading.settled_rank, reading.lost_rank), (0, first))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 5).lost_rank, 0, "it has not written meanwhile")

    def test_what_comes_right_before_each_write_makes_up_for_nothing_that_was_lost(self) -> None:
        """A node delivers every 5 s, as often as the container writes: always as much, and always as long before."""
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        for number in (1, 2, 3):
            # The first one is lost.
            self.send(range(10 * number, 10 * number + 10))
            self.ledger.look(self.ledger.mark(), 10 * max(1, number - 1))
            reading = self.ledger.read(self.ledger.mark(), 10 * number)
            self.assertEqual(reading.settled_rank, 0)
        self.assertEqual(self.ledger.missing, 10)

    def test_what_was_written_before_the_look_is_told_by_the_next_reading(self) -> None:
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        rank = self.send(range(10, 20))
        self.ledger.look(self.ledger.mark(), 20)
        self.assertEqual(self.ledger.read(self.ledger.mark(), 20).settled_rank, rank)

    def test_what_is_missing_settles_nothing(self) -> None:
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 0)
        self.send(range(10, 20))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 9)[:2], (0, False))
        self.assertEqual(self.ledger.missing, 11)

    def test_a_vllm_that_begins_anew_repeats_its_nonces_and_nothing_counts_as_lost(self) -> None:
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        again = self.send(range(10))
        self.assertEqual((self.ledger.missing, self.ledger.handed_on), (0, 10))
        reading = self.ledger.read(self.ledger.mark(), 10)
        self.assertEqual((reading.settled_rank, reading.lost_rank, reading.has_fallen), (again, 0, False))
        self.assertTrue(self.ledger.is_exact)

    def test_unknown_is_not_zero(self) -> None:
        rank = self.send(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        self.assertEqual(self.ledger.read(self.ledger.mark(), None)[:2], (0, False))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 10)[:2], (rank, False))

    def test_a_count_that_fell(self) -> None:
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        self.assertTrue(self.ledger.read(self.ledger.mark(), 3).has_fallen)
        self.assertFalse(self.ledger.read(self.ledger.mark(), 3).has_fallen, "it is told once")

    def test_artifacts_of_others_make_it_inexact(self) -> None:
        self.send(range(10))
        self.ledger.read(self.ledger.mark(), 11)
        self.assertFalse(self.ledger.is_exact)

    def test_the_numbers_stay_when_the_nonces_are_forgotten(self) -> None:
        rank = self.send(range(10))
        self.ledger.close()
        self.assertEqual((self.ledger.handed_on, self.ledger.by_node[None]), (10, 10))
        self.assertEqual(self.ledger.read(self.ledger.mark(), 10).settled_rank, rank)
        self.assertTrue(self.ledger.is_exact)
        self.send(range(5, 15))
        self.assertEqual(self.ledger.handed_on, 10)
        self.assertFalse(self.ledger.is_exact, "nobody knows which of these came before")

    def test_what_is_on_its_way_may_be_counted_already(self) -> None:
        self.ledger.sending(range(10))
        self.ledger.read(self.ledger.mark(), 10)
        self.assertTrue(self.ledger.is_exact)


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = PayloadQueue()

    def take(self, now: float = 0.0, *, is_tail: bool = False) -> list[int]:
        taken = []
        while (each := self.queue.take(now, is_tail=is_tail)) is not None:
            taken.append(each.seq)
        return taken

    def test_in_turn_over_lanes_and_a_few_of_each(self) -> None:
        for seq in range(10):
            self.queue.put(payload(seq, node_num=seq // 5), now=0)
        self.assertEqual(self.take(), [0, 5, 1, 6, 2, 7])
        self.assertEqual(self.take(is_tail=True), [3, 8, 4, 9])

    def test_one_that_waits_holds_nothing_up(self) -> None:
        waiting = payload(1)
        waiting.retry_at = 30.0
        self.queue.put(waiting, now=0)
        self.queue.put(payload(2), now=0)
        self.assertEqual((self.take(), self.queue.next_time(), len(self.queue)), ([2], 30.0, 1))
        self.assertEqual(self.take(30.0), [1])

    def test_no_more_than_16_at_once(self) -> None:
        for seq in range(100):
            self.queue.put(payload(seq, node_num=seq), now=0)
        self.assertEqual(len(self.take()), 16)
        self.assertEqual(len(self.take(is_tail=True)), 48)

    def test_hurry_and_remove(self) -> None:
        each = [payload(seq) for seq in range(3)]
        for one in each:
            one.retry_at = 30.0
            self.queue.put(one, now=0)
        self.queue.hurry(0)
        self.queue.remove({each[1]})
        self.assertEqual(self.take(), [0, 2])


class ApiAnswerTests(SynchronousTestCase):
    """docs/protocol/poc-v2.md, 'What can be asked'."""

    def test_epochs_with_numbers_as_texts_and_zeros_left_out(self) -> None:
        epochs = read_epochs(
            b'{"block_height": "130", "phase": 2, "latest_epoch": {"index": "7", "poc_start_block_height": "100"},'
            b'"epoch_params": {"poc_stage_duration": "60", "poc_validation_delay": 5, "poc_validation_duration": 20,'
            b'"epoch_length": 400}, "is_confirmation_poc_active": true,'
            b'"active_confirmation_poc_event": {"trigger_height": "120", "generation_start_height": 121, "phase": 2}}'
        )
        regular, confirmation = epochs.stages
        self.assertEqual((regular.end, regular.validation_start, regular.validation_end), (160, 165, 185))
        self.assertEqual((confirmation.height, confirmation.start, confirmation.end), (120, 121, 180))
        self.assertEqual((regular.kind, confirmation.kind), (StageKind.REGULAR, StageKind.CONFIRMATION))
        self.assertEqual((epochs.newest, epochs.next_start), (120, 500))

    def test_the_parameters_one_level_deeper(self) -> None:
        epochs = read_epochs(
            b'{"block_height": 130, "latest_epoch": {"poc_start_block_height": 100}, "epoch_params": {"epoch_params": '
            b'{"poc_stage_duration": "60", "poc_validation_delay": "5", "poc_validation_duration": "20"}}}'
        )
        self.assertEqual(epochs.stages, (StageWindow(100, 100, 160, 165, 185),))

    def test_without_parameters_the_heights_of_the_stages_count(self) -> None:
        """Windows without a length would make all that waits late."""
        epochs = read_epochs(
            b'{"block_height": 130, "latest_epoch": {"poc_start_block_height": 100}, "epoch_stages": {'
            b'"poc_generation_end": 160, "poc_validation_start": 165, "poc_validation_end": 185,'
            b'"poc_exchange_window": {"start": 101, "end": 163}}}'
        )
        self.assertEqual(epochs.stages, (StageWindow(100, 100, 163, 165, 185),))
        with self.assertRaisesRegex(ApiAnswerError, "how long a stage is"):
            read_epochs(b'{"block_height": 130, "latest_epoch": {"poc_start_block_height": 100}}')

    def test_anything_else_is_an_error_of_ours(self) -> None:
        for answer in (b"", b"[]", b"{}", b"\x00", b"[" * 10_000, b'{"block_height": "x"}', b'{"block_height": [1]}'):
            with self.assertRaises(ApiAnswerError):
                read_epochs(answer)
        for answer in (b"{}", b"[1]", b"junk"):
            with self.assertRaises(ApiAnswerError):
                read_nodes(answer)
        for read, answer in ((read_count, b"{}"), (read_count, b"[]"), (read_start_time, b"nothing")):
            with self.assertRaises(ApiAnswerError):
                read(answer)
        for count in (b"-1", b"1e300", b'"%s"' % (b"9" * 5000), b"9223372036854775808"):
            with self.assertRaisesRegex(ApiAnswerError, "no number from 0"):
                read_count(b'{"count": %s}' % count)
        with self.assertRaisesRegex(ApiAnswerError, "node_num"):
            # With that number there would be no node, and nothing to divide nonces by.
            read_nodes(b'[{"node": {"node_num": -1}}]')
        self.assertEqual(read_start_time(b"# HELP\nprocess_start_time_seconds 1.5e9\n"), 1.5e9)
        self.assertEqual(read_count(b'{"count": "17"}'), 17)
