"""What the bench of abuses calls a broken limit, and what it sends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from bench.abuse.attacks import ABUSES
from bench.abuse.floods import FLOODS, frame
from bench.abuse.limits import Limits, broken_limits, p99
from bench.abuse.report import DOCUMENTS, evidence, summary, verdict, written
from bench.abuse.results import Results, Row, Run, Side, read, write
from bench.abuse.watch import Watch
from bench.load import Load
from dapi.messages import decode_envelope, decode_generated

LIMITS = Limits()


class LimitTests(SynchronousTestCase):
    def test_the_nearest_rank(self) -> None:
        self.assertEqual(p99([float(number) for number in range(1, 201)]), 198.0)
        self.assertIsNone(p99([]))

    def test_twice_the_quiet_time_is_allowed(self) -> None:
        self.assertEqual(broken_limits(15.0, 30.0, 0, LIMITS), [])
        self.assertIn("at most 30.0 are allowed", broken_limits(15.0, 30.1, 0, LIMITS)[0])

    def test_20_ms_are_always_allowed(self) -> None:
        self.assertEqual(broken_limits(1.0, 20.0, 0, LIMITS), [])
        self.assertEqual(len(broken_limits(1.0, 20.1, 0, LIMITS)), 1)
        self.assertEqual(len(broken_limits(None, 20.1, 0, LIMITS)), 1)

    def test_memory_is_limited(self) -> None:
        self.assertEqual(broken_limits(1.0, 1.0, 100, LIMITS), [])
        self.assertIn("grew by 101 MB", broken_limits(1.0, 1.0, 101, LIMITS)[0])

    def test_no_ack_at_all_breaks_the_limit(self) -> None:
        self.assertEqual(len(broken_limits(1.0, None, 0, LIMITS)), 1)


def run(p99_ms: float | None, grown_mb: float = 5.0) -> Run:
    return Run(Side(2.0, 160, 1.0, 3.0, 9.0), Side(p99_ms, 240, 1.5, 4.0, 10.0), grown_mb, 3, 17)


class ReportTests(SynchronousTestCase):
    """The documents tell what the last run of all abuses came to, and say what breaks its limit."""

    def results(self, *rows: Row) -> Results:
        machine = {"cores": 2, "cpu": "a processor", "python": "CPython 3.11.7"}
        return Results("2026-11-27", "abc", machine, 420.0, 20, rows, (0.5, 2.0))

    def test_the_documents_tell_of_the_results(self) -> None:
        results = read()
        self.assertEqual([row.abuse for row in results.rows], list(ABUSES))
        for document, make in DOCUMENTS.items():
            text = document.read_text(encoding="utf-8")
            self.assertEqual(text, written(text, make(results)), f"{document}: run make bench-abuse")

    def test_most_of_three_runs_decide(self) -> None:
        for runs, is_within, word in (
            ([run(20.0)], True, "yes"),
            ([run(56.0)], False, "**no**"),
            ([run(56.0), run(3.0), run(4.0)], True, "yes (2 of 3)"),
            ([run(56.0), run(3.0), run(None)], False, "**no** (1 of 3)"),
            ([run(3.0, 101.0), run(3.0), run(3.0, 101.0)], False, "**no** (1 of 3)"),
        ):
            row = Row("a", runs)
            self.assertEqual((row.is_within(), verdict(row)), (is_within, word))

    def test_the_run_in_the_middle_is_shown(self) -> None:
        self.assertEqual(Row("a", [run(None), run(5.0), run(9.0)]).shown(), run(9.0))

    def test_the_table(self) -> None:
        text = evidence(self.results(Row("floods", [run(56.04)])))
        self.assertIn("| floods | 1.0 → 1.5 | 2.0 → 56.0 | 20.0 | 3.0 → 4.0 | 9.0 → 10.0 | 5 | **no** |", text)
        self.assertIn("with a load of 0.5 before", text)

    def test_the_summary_names_what_breaks_its_limit(self) -> None:
        rows = [Row("floods", [run(3.0)]), Row("pings", [run(56.0)]), Row("bombs", [run(4.0, 170.0)])]
        text = " ".join(summary(self.results(*rows)).split())
        self.assertIn("beside 1 of 3 kinds of abuse", text)
        self.assertIn("but not beside pings and bombs. The slowest 99th percentile was 56.0 ms, beside pings", text)
        self.assertIn("the most memory 170 MB, beside bombs", text)
        self.assertNotIn("but not beside", summary(self.results(rows[0])))

    def test_the_summary_names_what_keeps_its_limit_in_most_runs_only(self) -> None:
        rows = [Row("floods", [run(3.0)]), Row("pings", [run(56.0), run(3.0), run(4.0)])]
        self.assertIn(
            "at most (beside pings in two of three runs). The", " ".join(summary(self.results(*rows)).split())
        )

    def test_they_take_the_place_of_the_old_ones(self) -> None:
        text = "a\n<!-- begin abuse -->\nold\n<!-- end abuse -->\nb\n"
        self.assertEqual(written(text, "new\n"), text.replace("old", "new"))
        self.assertRaises(ValueError, written, "a\n", "new\n")

    def test_the_file_is_read_as_it_was_written(self) -> None:
        self.patch(os, "environ", os.environ | {"BENCH_ABUSE_RESULTS": self.mktemp()})
        results = self.results(Row("floods", [run(None), run(3.0)]))
        write(results)
        self.assertEqual(msgspec.json.encode(read()), msgspec.json.encode(results))


class WatchTests(SynchronousTestCase):
    def test_the_longest_turn_and_the_longest_write_since_it_was_asked(self) -> None:
        polled: list[object] = []

        class Reactor:
            _poller: Any = SimpleNamespace(poll=polled.append, register="register")

        class Written:
            def write(self, function: Callable[[Any], object], *, intake: bool = False) -> object:
                return function(None), intake

        cpu, wall = iter((0.0, 0.25, 10.0, 10.5, 20.0, 20.125, 30.0)), iter((1.0, 1.5, 2.0, 2.25))
        self.patch(time, "thread_time", cpu.__next__)
        self.patch(time, "perf_counter", wall.__next__)
        reactor, database = Reactor(), cast(Any, Written())
        watch = Watch(reactor, database)
        for _ in range(3):
            reactor._poller.poll(1)
        self.assertEqual((polled, reactor._poller.register), ([1, 1, 1], "register"))
        self.assertEqual([database.write(lambda _: 7, intake=True) for _ in range(2)], [(7, True)] * 2)
        self.assertEqual(watch.take(), {"turn_ms": 500.0, "write_ms": 500.0})
        self.assertEqual(watch.take(), {"turn_ms": 0.0, "write_ms": 0.0})


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
