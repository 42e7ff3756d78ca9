"""What the bench of abuses calls a broken limit, and what it sends."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from bench.abuse.attacks import ABUSES
from bench.abuse.floods import FLOODS, frame
from bench.abuse.limits import Limits, broken_limits, p99
from bench.load import Load
from dapi.messages import decode_envelope, decode_generated

LIMITS = Limits()


class LimitTests(SynchronousTestCase):
    def test_the_nearest_rank(self) -> None:
        self.assertEqual(p99([float(number) for number in range(1, 201)]), 198.0)

    def test_twice_the_quiet_time_is_allowed(self) -> None:
        self.assertEqual(broken_limits([15.0], [30.0], 0, LIMITS), [])
        self.assertIn("at most 30.0 are allowed", broken_limits([15.0], [30.1], 0, LIMITS)[0])

    def test_20_ms_are_always_allowed(self) -> None:
        self.assertEqual(broken_limits([1.0], [20.0], 0, LIMITS), [])
        self.assertEqual(len(broken_limits([1.0], [20.1], 0, LIMITS)), 1)

    def test_memory_is_limited(self) -> None:
        self.assertEqual(broken_limits([1.0], [1.0], 100, LIMITS), [])
        self.assertIn("grew by 101 MB", broken_limits([1.0], [1.0], 101, LIMITS)[0])

    def test_no_ack_at_all_breaks_the_limit(self) -> None:
        self.assertEqual(len(broken_limits([1.0], [], 0, LIMITS)), 1)


class FloodTests(SynchronousTestCase):
    def test_the_lengths_of_frames(self) -> None:
        self.assertEqual(frame(b"ab"), b"\x81\x02ab")
        self.assertEqual(frame(b"x" * 300)[:4], b"\x81\x7e\x01\x2c")
        self.assertEqual(frame(b"x" * 70000)[:10], b"\x81\x7f" + (70000).to_bytes(8, "big"))

    def test_a_batch_is_that_of_its_message(self) -> None:
        load = Load(3)
        self.assertEqual(decode_generated(load.batch(7)), decode_envelope(load.message(7)).batch)

    def test_the_largest_message_is_a_right_one_that_dapi_takes(self) -> None:
        pieces = FLOODS["maximal messages"]()
        message = next(pieces)[10:]
        self.assertTrue(15 * 2**20 < len(message) <= 16 * 2**20, len(message))

    def test_each_piece_of_long_numbers_is_json(self) -> None:
        pieces = FLOODS["10,000-digit numbers"]()
        for piece in (next(pieces), next(pieces)):
            self.assertEqual(json.loads(piece[10:], parse_int=str, parse_float=str)["type"], "generated")

    def test_all_abuses_of_the_table_have_names_of_their_own(self) -> None:
        self.assertEqual(len(set(ABUSES)), len(ABUSES))
        self.assertEqual(len(ABUSES), 17)
