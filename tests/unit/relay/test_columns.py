"""Artifacts that are read as columns: the same as looked through, and nothing that no node writes."""

from __future__ import annotations

import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.columns import read_nonces
from dapi.relay.facts import Facts
from dapi.relay.scan import Scan, read_whole

VECTOR = base64.b64encode(bytes(range(24))).decode()
ENVELOPE = {"public_key": "k", "block_hash": "h", "block_height": 5, "node_id": 3}


def artifact(nonce: object, vector: str = VECTOR) -> str:
    return f'{{"nonce": {nonce}, "vector_b64": "{vector}"}}'


def body_of(*artifacts: str, between: str = ", ") -> bytes:
    return json.dumps({**ENVELOPE, "artifacts": []}).encode()[:-2] + between.join(artifacts).encode() + b"]}"


def scanned(body: bytes) -> Facts:
    scan = Scan()
    scan.feed(body)
    return scan.facts()


class ReadNoncesTests(SynchronousTestCase):
    def test_numbers_of_any_length_in_any_order(self) -> None:
        nonces = [0, 7, 9, 10, 99, 100, 2**31 - 1, 5, 4, 1_000_000]
        facts = read_whole(body_of(*map(artifact, nonces)))
        assert facts is not None
        self.assertEqual((list(facts.nonces), facts.highest, facts.spacing), (nonces, 2**31 - 1, 1))
        self.assertEqual(facts, scanned(body_of(*map(artifact, nonces))))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2000), st.integers(1, 40), st.integers(1, 300), st.booleans())
    def test_evenly_spaced_ones_are_a_range(self, first: int, step: int, number: int, has_spaces: bool) -> None:
        artifacts = [{"nonce": first + step * index, "vector_b64": VECTOR} for index in range(number)]
        separators = (", ", ": ") if has_spaces else (",", ":")
        body = json.dumps({**ENVELOPE, "artifacts": artifacts}, separators=separators).encode()
        facts = read_whole(body)
        assert facts is not None
        self.assertEqual(
            facts.nonces, range(first, first + step * number, step) if number > 1 else range(first, first + 1)
        )
        self.assertEqual(facts, scanned(body))

    def test_a_list_with_anything_else_in_it_is_not_read(self) -> None:
        right = artifact(3)
        for odd in (
            " ",
            "5",
            artifact("03"),
            artifact("-3"),
            artifact(":3"),
            artifact("3.0"),
            artifact(2**31),
            artifact(10**25),
            artifact(3, ""),
            artifact(3, VECTOR[:31] + "="),
            artifact(3, VECTOR[:31] + "*"),
            artifact(3, base64.b64encode(b"\x00\x7c" * 12).decode()),
            right.replace("nonce", "Nonce"),
            right.replace("}", ', "vector_b64": ""}'),
            right.replace(" ", "  ", 1),
            right.replace("}", "} "),
        ):
            for artifacts in ([right, odd, right], [right, odd], [odd, right], [odd]):
                self.assertIsNone(read_whole(body_of(*artifacts)), artifacts)
        for between in (" , ", ",\n", ";", ", ,"):
            self.assertIsNone(read_whole(body_of(right, right, between=between)), between)
        self.assertIsNotNone(read_whole(body_of(right, right)))

    def test_each_byte_around_digits_and_vectors_counts(self) -> None:
        body = body_of(artifact(3), artifact(6), artifact(9))
        start, end = body.index(b"[") + 1, body.index(b"]")
        self.assertIsNotNone(read_nonces(body, start, end))
        for place in range(start, end):
            if body[place : place + 1] not in b"0369" + VECTOR.encode():
                self.assertIsNone(read_nonces(body[:place] + b"~" + body[place + 1 :], start, end), place)

    def test_of_two_lists_none_is_read(self) -> None:
        body = body_of(artifact(3))
        for second in (b', "artifacts": []}', b', "encoding": {"artifacts": []}}', b', "artifacts": [7]}'):
            self.assertIsNone(read_whole(body[:-1] + second), second)
        self.assertIsNone(read_whole(b'{"encoding": {"artifacts": [' + artifact(3).encode() + b"]}}"))

    def test_a_body_that_would_take_long_is_not_read(self) -> None:
        """Nonces that have another number of digits each time are a table each."""
        body = body_of(*(artifact(nonce) for nonce in [5, 50] * 2000))
        self.assertIsNone(read_whole(body))
        self.assertEqual(len(scanned(body).nonces), 4000)
