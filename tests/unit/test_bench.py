"""The parts of the benchmarks that can be wrong without anybody noticing."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import goals, results
from bench.comparison import Plan, spread
from bench.connections import CallbackConnection, WebSocketConnection, head, unmasked
from bench.load import Load
from bench.table import DOCUMENT, TABLES, number, reached, tables, written
from dapi.messages import content_id, decode_envelope, decode_generated, encode_ack
from dapi.websocket.frames import TEXT, short_frame


class LoadTests(SynchronousTestCase):
    """The batches are right ones of one node, and no two are the same."""

    def test_a_message_is_a_batch_of_the_node(self) -> None:
        batch = decode_envelope(Load(20).message(7)).batch
        self.assertEqual(len(batch.nonces), 20)
        self.assertEqual({nonce % Load.NODE_COUNT for nonce in batch.nonces}, {Load.NODE_NUM})
        self.assertEqual(batch.node_num, Load.NODE_NUM)

    def test_a_callback_brings_the_same_batch(self) -> None:
        load = Load(3)
        self.assertEqual(decode_generated(load.batch(7)), decode_envelope(load.message(7)).batch)

    def test_no_two_are_the_same(self) -> None:
        load = Load(20)
        ids = {content_id(decode_envelope(load.message(number)).batch) for number in range(100)}
        self.assertEqual(len(ids), 100)

    def test_an_ack_tells_the_number_however_it_is_written(self) -> None:
        message_id = decode_envelope(Load(1).message(42)).id
        self.assertEqual(Load.number(encode_ack(message_id)), 42)
        self.assertEqual(Load.number(json.dumps({"type": "ack", "id": message_id}).encode()), 42)


class ConnectionTests(SynchronousTestCase):
    """What a receiver answers is counted, once, in whatever pieces it comes."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(10)
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.ours.close)
        self.load = Load(1)

    def offered(self, count: int) -> WebSocketConnection:
        """A connection that has sent so many messages, which the other side has read."""
        connection = WebSocketConnection(self.ours)
        connection.offer(self.load, itertools.count(), count)
        expected = b"".join(head(len(self.load.message(n))) + self.load.message(n) for n in range(count))
        self.assertEqual(self.theirs.recv(2**16) if count else b"", expected)
        return connection

    def ack(self, number: int) -> bytes:
        return short_frame(TEXT, encode_ack(self.load.digits(number).decode()), b"\1\2\3\4")

    def test_acks_count_in_any_pieces(self) -> None:
        connection = self.offered(3)
        answers = self.ack(1) + self.ack(0)
        for piece in (answers[:1], answers[1:20], answers[20:-1]):
            self.theirs.send(piece)
            connection.receive()
        self.assertEqual(set(connection.sent_at), {0, 2})
        self.theirs.send(answers[-1:])
        self.assertEqual(len(connection.receive()), 1)
        self.assertEqual(set(connection.sent_at), {2})

    def test_a_ping_is_answered(self) -> None:
        connection = self.offered(0)
        self.theirs.send(bytes((0x89, 0x82)) + b"\0\0\0\0hi")
        self.assertEqual(connection.receive(), [])
        self.assertEqual(self.theirs.recv(100), b"\x8a\x02hi")

    def test_what_does_not_fit_is_sent_later(self) -> None:
        connection = WebSocketConnection(self.ours)
        connection.offer(Load(20_000), itertools.count(), 4)
        self.assertTrue(connection.is_behind)
        size = 4 * (10 + len(Load(20_000).message(0)))
        while size:
            size -= len(self.theirs.recv(2**20))
            connection.flush()
        self.assertFalse(connection.is_behind)

    def test_the_end_is_an_error(self) -> None:
        connection = self.offered(1)
        self.theirs.close()
        self.assertRaises(EOFError, connection.receive)

    def test_what_a_client_masks_is_read(self) -> None:
        self.assertEqual(unmasked(b"\1\2\3\4", b"\1\2\3\4\1"), bytes(5))
        self.assertEqual([len(head(size)) for size in (125, 126, 65535, 65536)], [2, 4, 4, 10])

    def test_answers_to_callbacks_count_when_they_are_whole(self) -> None:
        connection = CallbackConnection(self.ours, "/path")
        connection.offer(self.load, itertools.count(), 1)
        request = self.theirs.recv(2**16)
        self.assertTrue(request.startswith(b"POST /path HTTP/1.1\r\n"), request)
        self.assertEqual(request.partition(b"\r\n\r\n")[2], self.load.batch(0))
        self.theirs.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nO")
        self.assertEqual(connection.receive(), [])
        self.theirs.send(b"K")
        self.assertEqual(len(connection.receive()), 1)

    def test_a_refused_callback_is_an_error(self) -> None:
        connection = CallbackConnection(self.ours, "/path")
        connection.offer(self.load, itertools.count(), 1)
        self.theirs.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        self.assertRaises(RuntimeError, connection.receive)


class ResultsTests(SynchronousTestCase):
    """The file has what each benchmark wrote last."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.patch(os, "environ", os.environ | {"BENCH_RESULTS": str(self.path)})

    def side(self, rate: float, **figures: Any) -> dict[str, Any]:
        return {"rate": spread([rate]), "cpu_us": spread([1e6 / rate]), **figures}

    def test_rounds_are_shown_as_rates_ratios_and_cpu_time(self) -> None:
        sides = {"dapi": self.side(50), "other": self.side(100, ratio=spread([0.4, 0.5, 0.9]))}
        for section in ("intake", "http"):
            results.Section(section).write_rounds({"20": sides})
        found = results.read()
        self.assertEqual(found["intake"], {"20": {"dapi": 50, "other": 100}})
        self.assertEqual(found["ratios"]["http"], {"20": {"other": 0.5}})
        self.assertEqual(found["rounds"]["http"], {"20": sides})
        self.assertEqual(
            found["cpu_us"], {"20": {"dapi": 20_000, "other": 10_000, "http_dapi": 20_000, "http_other": 10_000}}
        )
        self.assertEqual(set(found["measured"]), {"intake", "http"})

    def test_a_section_takes_the_place_of_its_last_one_alone(self) -> None:
        results.Section("nodes").write({"open": 1})
        results.Section("signing").write({"limit": 2})
        results.Section("nodes").write({"status": 3})
        found = results.read()
        self.assertEqual((found["nodes"], found["signing"]), ({"status": 3}, {"limit": 2}))

    def test_goals_that_are_reached_missed_and_not_measured(self) -> None:
        sides = {"dapi": self.side(50), "go": self.side(100)}
        measured = {"ratios": {"go": {"20": {"go": 0.8}, "1000": {"go": 1.99}}}, "rounds": {"go": {"20": sides}}}
        verdicts = list(goals.verdicts(measured))
        self.assertEqual([each.by_cpu for each in verdicts[:2]], [0.5, None])
        table = reached(measured)
        self.assertIn("| **0.80** ≥ 0.8 (0.50) | 1.99 < 2 | not measured |", table)
        words = [each.words for each in verdicts]
        self.assertEqual(words[:3], ["reached", "not reached", "not measured"])
        self.assertEqual(len(words), 3 * len(goals.GOALS))

    def test_the_command_line_without_arguments_is_the_plan(self) -> None:
        self.assertEqual(Plan.of_arguments(None, []), Plan())
        self.assertEqual(Plan.of_arguments(None, ["--nonces", "7", "--rounds", "2"]), Plan(rounds=2, nonces=[7]))

    def test_a_spread_has_four_digits(self) -> None:
        self.assertEqual(spread([3, 1, 2.00049]), {"median": 2.0, "min": 1, "max": 3})


class TableTests(SynchronousTestCase):
    """Each table has a place in the document, and gets the figures of its section."""

    def test_the_document_has_a_place_for_each_table_and_no_other(self) -> None:
        places = re.findall(r"<!-- table: (\w+) -->\n(?:.*\n)*?<!-- end -->\n", DOCUMENT.read_text())
        self.assertEqual(sorted(places), sorted(TABLES))

    def test_a_table_takes_the_place_of_the_old_one_alone(self) -> None:
        text = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\nold\n<!-- end -->\n"
        self.assertEqual(written(text, {"one": "new\n"}), text.replace("old", "new", 1))

    def test_a_comparison(self) -> None:
        shares = {"receiver_share": spread([0.9]), "sender_share": spread([0.1])}
        side = {"rate": spread([1_234]), "cpu_us": spread([80]), "first_thread_us": spread([50]), **shares}
        rounds = {"20": {"dapi": side, "go": side | {"ratio": spread([0.5])}}}
        measured = {"at": "2026-11-26 21:00 UTC", "commit": "abc", "seconds": 3.2, "load": [0.1, 0.9]}
        made = tables({"go": {}, "rounds": {"go": rounds}, "measured": {"go": measured}})
        self.assertIn("| Go, SQLite | 1,234 (1,234-1,234) · **0.50** |", made["go"])
        self.assertIn("| **dapi**, on disk | 80.0 (50.0) · 90% · 10% |", made["go_cpu"])
        self.assertIn("version abc, in 3 s, with a load of 0.1 before and 0.9 after", made["go"])

    def test_numbers_are_short(self) -> None:
        self.assertEqual([number(value) for value in (12_345.6, 99.94, 0.123, 0)], ["12,346", "99.9", "0.12", "0"])
