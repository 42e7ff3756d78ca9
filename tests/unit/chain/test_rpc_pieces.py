"""A query whose answer is read in pieces: by which node, on which thread, and what ends it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain import json_rpc
from dapi.chain.answer_reader import ValueReader
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainRefusedError, ChainUnavailableError
from tests.logs import log_of
from tests.unit.http.answers_by_hand import AgentByHand
from tests.unit.threadless import ThreadlessReactor

PATH = "/inference.inference.Query/PocBatchesForStage"
TIMEOUT_SECONDS = 60.0


class Kept(ValueReader[bytes]):
    """Keeps the value; refuses what it is told to."""

    def __init__(self, refuses: bytes | None = None) -> None:
        self.value = b""
        self._refuses = refuses

    def feed(self, piece: bytes) -> None:
        self.value += piece
        if self._refuses is not None and self._refuses in self.value:
            raise ChainUnavailableError("these are no batches")

    def finish(self) -> bytes:
        return self.value


def pieces_of(value: bytes, request_id: int = 1, **response: Any) -> list[bytes]:
    """The answer, in pieces of 10 bytes."""
    encoded = base64.b64encode(value).decode()
    whole = json.dumps({"id": request_id, "result": {"response": {"value": encoded, **response}}}).encode()
    return [whole[begin : begin + 10] for begin in range(0, len(whole), 10)]


class PiecesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(json_rpc, "_PIECE_BYTES", 10)
        self.log = log_of(self)
        self.reactor = ThreadlessReactor()
        self.agent = AgentByHand(200, 200)
        self.first, self.second = self.agent.answers
        self.readers: list[Kept] = []
        self.refuses: bytes | None = None

    def ask(self, *hosts: str, max_bytes: int = 10_000) -> Deferred[bytes]:
        urls = [f"http://{host}:26657" for host in hosts or ("a",)]
        self.rpc = ChainRpc(self.reactor, urls, agent=self.agent, timeout_seconds=TIMEOUT_SECONDS)
        return self.rpc.abci_query_in_pieces(PATH, b"\x08\x0a", 22, self.make_reader, max_bytes=max_bytes)

    def make_reader(self) -> Kept:
        self.readers.append(Kept(self.refuses))
        return self.readers[-1]

    def send(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.first.send(piece)

    def answer(self, value: bytes, **response: Any) -> None:
        self.send(pieces_of(value, **response))
        self.first.end()

    def assert_nothing_is_left(self) -> None:
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_value_is_fed_and_the_result_is_the_readers(self) -> None:
        asking = self.ask()
        self.answer(b"some batches", height="22")
        self.assertEqual(self.successResultOf(asking), b"some batches")
        self.assertEqual(set(self.reactor.deferred), {"feed", "finish"})
        self.assert_nothing_is_left()

    def test_a_node_that_fails_at_other_calls_is_not_waited_for(self) -> None:
        asking = self.ask("a", "b")
        self.reactor.advance(10)
        self.assertEqual(len(self.agent.sent), 1)
        # Its status comes no more: it hangs.
        self.rpc.nodes.call_failed(self.rpc.nodes[0], "status", "no complete answer within 3 s")
        self.reactor.advance(10)
        self.assertEqual(len(self.agent.sent), 2)
        for piece in pieces_of(b"some batches", 2):
            self.second.send(piece)
        self.second.end()
        self.assertEqual(self.successResultOf(asking), b"some batches")
        self.assert_nothing_is_left()

    def test_the_only_one_is_waited_for_all_the_same(self) -> None:
        asking = self.ask("a")
        self.rpc.nodes.call_failed(self.rpc.nodes[0], "status", "no complete answer within 3 s")
        self.reactor.advance(50)
        self.answer(b"some batches")
        self.assertEqual(self.successResultOf(asking), b"some batches")

    def test_what_is_asked(self) -> None:
        self.ask()
        call = json.loads(self.agent.sent[0])
        self.assertEqual(call["method"], "abci_query")
        self.assertEqual(call["params"], {"path": PATH, "data": "080a", "height": "22", "prove": False})

    def test_the_other_side_is_held_back_while_the_thread_works(self) -> None:
        asking = self.ask()
        pieces = pieces_of(b"some batches")
        self.reactor.holds_threads = True
        self.first.send(pieces[0])
        self.assertTrue(self.first.connection.is_paused)
        # What was on its way is kept.
        self.first.send(pieces[1])
        self.assertEqual(self.reactor.deferred, ["feed"])
        self.reactor.run_threads()
        self.assertEqual(self.reactor.deferred, ["feed", "feed"])
        self.assertTrue(self.first.connection.is_paused)
        self.reactor.run_threads()
        self.assertFalse(self.first.connection.is_paused)
        self.reactor.holds_threads = False
        self.send(pieces[2:])
        self.first.end()
        self.assertEqual(self.successResultOf(asking), b"some batches")

    def test_a_thread_that_takes_long_is_no_silence(self) -> None:
        asking = self.ask()
        pieces = pieces_of(b"some batches")
        self.reactor.holds_threads = True
        self.first.send(pieces[0])
        self.reactor.advance(2 * TIMEOUT_SECONDS)
        self.reactor.holds_threads = False
        self.reactor.run_threads()
        self.send(pieces[1:])
        self.first.end()
        self.assertEqual(self.successResultOf(asking), b"some batches")

    def test_refusals(self) -> None:
        asking = self.ask()
        self.answer(b"", code=6, codespace="sdk", log="unknown query path")
        error = self.failureResultOf(asking, ChainRefusedError).value
        self.assertEqual((error.code, error.codespace), (6, "sdk"))
        self.assertEqual(self.log.warnings(), [])

    def test_a_refusal_behind_the_value(self) -> None:
        asking = self.ask()
        self.answer(b"some batches", code=18, codespace="sdk", log="half of it")
        self.failureResultOf(asking, ChainRefusedError)

    def test_a_height_of_the_future_is_asked_of_the_next_node(self) -> None:
        asking = self.ask("a", "b")
        self.answer(b"", code=26, codespace="sdk", log="cannot query with height in the future")
        for piece in pieces_of(b"some batches", request_id=2):
            self.second.send(piece)
        self.second.end()
        self.assertEqual(self.successResultOf(asking), b"some batches")

    def test_an_error_in_its_place(self) -> None:
        asking = self.ask()
        self.send([json.dumps({"id": 1, "error": {"code": -32603, "data": "pruned"}}).encode()])
        self.first.end()
        self.assertIn("pruned", str(self.failureResultOf(asking, ChainUnavailableError).value))

    def test_http_errors(self) -> None:
        self.agent = AgentByHand(503)
        (self.first,) = self.agent.answers
        asking = self.ask()
        self.send([b"PoC is poc_v2 now"])
        self.first.end()
        self.assertEqual(self.failureResultOf(asking, ChainRefusedError).value.code, 1161)

    def test_an_answer_that_is_too_long(self) -> None:
        asking = self.ask(max_bytes=100)
        self.send(pieces_of(bytes(200)))
        failure = self.failureResultOf(asking, ChainUnavailableError)
        self.assertIn("longer than 100 bytes", str(failure.value))
        self.assertTrue(self.first.connection.is_closed)
        self.assert_nothing_is_left()

    def test_another_node_is_read_by_a_new_reader(self) -> None:
        asking = self.ask("a", "b")
        self.send(pieces_of(b"some batches")[:6])
        self.first.lose()
        for piece in pieces_of(b"the same batches", request_id=2):
            self.second.send(piece)
        self.second.end()
        self.assertEqual(self.successResultOf(asking), b"the same batches")
        self.assertEqual(len(self.readers), 2)
        self.assertEqual(len(self.log.warnings()), 1)
        self.assert_nothing_is_left()

    def test_what_the_reader_cannot_read(self) -> None:
        self.refuses = b"bat"
        asking = self.ask()
        self.send(pieces_of(b"some batches"))
        self.assertIn("no batches", str(self.failureResultOf(asking, ChainUnavailableError).value))
        self.assertTrue(self.first.connection.is_closed)

    def test_silence_before_the_answer_and_in_its_midst(self) -> None:
        self.agent.hangs = True
        asking = self.ask()
        self.reactor.advance(TIMEOUT_SECONDS)
        self.failureResultOf(asking, ChainUnavailableError)
        self.agent = AgentByHand(200)
        (self.first,) = self.agent.answers
        asking = self.ask()
        for piece in pieces_of(b"some batches")[:6]:
            self.reactor.advance(TIMEOUT_SECONDS - 1)
            self.first.send(piece)
        self.assertNoResult(asking)
        self.reactor.advance(TIMEOUT_SECONDS)
        self.assertIn("within 60 s", str(self.failureResultOf(asking, ChainUnavailableError).value))
        self.assertTrue(self.first.connection.is_closed)
        self.assert_nothing_is_left()

    def test_cancelled_while_it_waits(self) -> None:
        asking = self.ask()
        self.send(pieces_of(b"some batches")[:6])
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertTrue(self.first.connection.is_closed)
        self.assert_nothing_is_left()

    def test_cancelled_while_the_thread_works(self) -> None:
        """It ends when the thread has."""
        asking = self.ask()
        self.reactor.holds_threads = True
        self.first.send(pieces_of(b"some batches")[0])
        self.rpc.close()
        self.assertNoResult(asking)
        self.reactor.run_threads()
        self.failureResultOf(asking, CancelledError)
        self.assertTrue(self.first.connection.is_closed)
        self.assert_nothing_is_left()
