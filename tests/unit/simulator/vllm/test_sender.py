"""The simulated vLLM's sender by the clock, with the real times (docs/protocol/poc-v2.md, 'Senders')."""

from __future__ import annotations

import json

from dapi.http.exchange import AnswerTooLongError, NoAnswerError
from dapi.simulator.vllm.sender import TRANSITIONS, SenderState
from tests.unit.simulator.vllm.sender_case import SenderTestCase


class DeliveryTests(SenderTestCase):
    def test_everything_each_5_s_from_the_start_of_the_last_delivery(self) -> None:
        self.sender.generate(7)
        self.pass_time(5.5)
        self.assertEqual(self.sender.state, SenderState.TRYING)
        self.pass_time(3)
        self.exchanges.open[0].callback((200, b""))
        self.exchanges.answer = 200
        self.pass_time(12)
        self.assertEqual(self.times(), [5, 10, 15, 20])
        first = self.nonces(0)
        self.assertEqual(first, list(range(1, 1 + 3 * len(first), 3)), "the node's own nonces")
        self.assertEqual(self.nonces(1)[0], first[-1] + 3)

    def test_nothing_else_goes_before_the_pending_payload_is_gone(self) -> None:
        self.exchanges.answer = NoAnswerError("refused")
        self.sender.generate(7)
        self.pass_time(5 + 151 + 1)
        self.assertEqual(self.times(), [5, 6, 8, 12, 20, 36, 66, 96, 126, 156])
        self.assertEqual(len({body for _, body in self.exchanges.bodies}), 1, "the same bytes")
        self.assertEqual(self.sender.counts.dropped, len(self.nonces(0)) + self.dropped_from_buffer())
        self.pass_time(5)
        self.assertEqual(self.times()[10], 161)
        self.assertEqual(len(self.nonces(10)), 3000, "of what was made meanwhile the oldest are dropped")

    def nonces(self, number: int) -> list[int]:
        """The nonces of a request."""
        return [each["nonce"] for each in json.loads(self.exchanges.bodies[number][1])["artifacts"]]

    def dropped_from_buffer(self) -> int:
        """How many of those that were made since are dropped already."""
        return max(0, self.sender.counts.made - len(self.nonces(0)) - 3000)

    def test_a_try_has_10_s_in_all(self) -> None:
        self.sender.generate(7)
        self.pass_time(5 + 10 + 1 + 1)
        self.assertEqual(self.times(), [5, 16])

    def test_any_answer_below_400_is_a_delivery(self) -> None:
        self.sender.generate(7)
        for answer in (200, 302, AnswerTooLongError(200, b"")):
            self.exchanges.answer = answer
            delivered = self.sender.counts.delivered
            self.pass_time(5)
            self.assertGreater(self.sender.counts.delivered, delivered)
        self.exchanges.answer = 400
        tries = self.sender.counts.tries
        self.pass_time(6.5)
        self.assertGreaterEqual(self.sender.counts.tries, tries + 2)
        self.assertEqual(self.sender.state, SenderState.WAITING)

    def test_a_stop_forgets_and_a_new_init_begins_at_its_first_nonce(self) -> None:
        self.sender.generate(7)
        self.pass_time(6)
        self.successResultOf(self.sender.stop())
        self.assertEqual(self.sender.counts.forgotten, self.sender.counts.made)
        self.exchanges.answer = 200
        self.sender.generate(8)
        self.pass_time(6)
        self.assertEqual(self.nonces(1)[0], 1)
        self.assertEqual(json.loads(self.exchanges.bodies[1][1])["block_height"], 8)


class StateTests(SenderTestCase):
    def test_each_transition_that_is_drawn_and_no_other(self) -> None:
        for state in SenderState:
            for goal in SenderState:
                self.sender.state = state
                if goal in TRANSITIONS[state]:
                    self.sender._turn(goal)
                    self.assertIs(self.sender.state, goal)
                else:
                    with self.assertRaises(RuntimeError):
                        self.sender._turn(goal)
        self.sender.state = SenderState.IDLE
