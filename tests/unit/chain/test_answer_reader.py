"""The answer to a query, read in pieces: the same as when it is decoded in one go."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain import answer_reader
from dapi.chain.answer_reader import AnswerReader, ValueReader
from dapi.chain.rpc_answers import QueryAnswer, RpcError, decode_answer
from dapi.errors import ChainUnavailableError
from tests.stage_answers import cut

texts = st.text(max_size=20) | st.sampled_from(['"value":"', '\\"value\\": "QUJD"', "value"])
values = st.none() | st.binary(max_size=60).map(lambda value: base64.b64encode(value).decode())
places = st.lists(st.integers(0, 2**20), max_size=20)


class Kept(ValueReader[bytes]):
    """Keeps all of the value."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def finish(self) -> bytes:
        return b"".join(self.pieces)


def body(response: dict[str, Any], request_id: int = 7) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {"response": response}}).encode()


def read(pieces: Iterable[bytes], value: Kept) -> QueryAnswer | RpcError:
    reader = AnswerReader(7, value)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


def read_joined(pieces: Iterable[bytes]) -> QueryAnswer | RpcError:
    """What was read, with the value in its place."""
    value = Kept()
    answer = read(pieces, value)
    if isinstance(answer, QueryAnswer) and answer.response.value is not None:
        assert answer.response.value == b""
        answer.response.value = value.finish()
    return answer


class AnswerReaderTests(SynchronousTestCase):
    @given(values, texts, texts, st.integers(0, 30), st.booleans(), st.integers(0, 3), places)
    def test_the_same_as_in_one_go(
        self, value: str | None, log: str, codespace: str, code: int, is_first: bool, spaces: int, at: list[int]
    ) -> None:
        others = {"code": code, "log": log, "codespace": codespace, "height": "30"}
        response = {"value": value, **others} if is_first else {**others, "value": value}
        whole = body(response).replace(b'"value": ', b'"value"' + b" " * spaces + b":" + b" " * spaces)
        self.assertEqual(read_joined(cut(whole, at)), decode_answer(whole, 7, QueryAnswer))

    def test_cut_at_each_byte_and_between_all(self) -> None:
        whole = body({"code": 0, "value": base64.b64encode(bytes(range(10))).decode(), "height": "30"})
        expected = decode_answer(whole, 7, QueryAnswer)
        for place in range(len(whole) + 1):
            self.assertEqual(read_joined(cut(whole, [place])), expected)
        self.assertEqual(read_joined(cut(whole, range(len(whole)))), expected)

    def test_nothing_of_the_value_is_kept(self) -> None:
        value = Kept()
        reader = AnswerReader(7, value)
        reader.feed(b'{"id": 7, "result": {"response": {"value": "')
        for _ in range(100):
            reader.feed(b"QUJDREVGR0hJ")
            self.assertLess(len(reader._json) + len(reader._rest), 100)
        self.assertEqual(len(value.finish()), 900 - 3)

    def test_errors_in_its_place(self) -> None:
        whole = json.dumps({"id": 7, "error": {"code": -32603, "message": "m", "data": 'no "value":"QUJD"'}}).encode()
        for at in (range(0), range(len(whole))):
            self.assertEqual(read(cut(whole, at), Kept()), RpcError(-32603, "m", 'no "value":"QUJD"'))

    def test_cut_off_anywhere(self) -> None:
        whole = body({"code": 0, "value": "QUJDREU=", "height": "30"})
        for size in range(len(whole)):
            self.assertRaises(ChainUnavailableError, read, [whole[:size]], Kept())

    def test_what_is_no_answer(self) -> None:
        for whole in (
            b"",
            b"<html>",
            body({"value": "QUJD"}, request_id=8),
            body({"value": "QU=="}) + b"{}",
            body({"value": "QUJ"}),
            body({"value": "QU==QUJD"}),
            body({"value": "QUJD QUJD"}),
            body({"value": "QU-_"}),
            body({"value": "QU\\nJD"}),
            json.dumps({"id": 7, "result": {"value": "QUJD"}}).encode(),
        ):
            for at in (range(0), range(len(whole))):
                self.assertRaises(ChainUnavailableError, read, cut(whole, at), Kept())

    def test_too_much_json(self) -> None:
        self.patch(answer_reader, "_MAX_JSON_BYTES", 1000)
        value = base64.b64encode(bytes(3000)).decode()
        read([body({"value": value})], Kept())
        for whole in (b" " * 1001 + body({"value": ""}), body({"value": "", "log": "l" * 1001})):
            self.assertRaises(ChainUnavailableError, read, [whole], Kept())
            self.assertRaises(ChainUnavailableError, read, cut(whole, range(0, len(whole), 10)), Kept())
