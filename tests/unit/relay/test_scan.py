"""What the relay reads of a callback, and that nothing has to be readable."""

from __future__ import annotations

import base64
import re
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.facts import Facts, read_target
from dapi.relay.nonces import NonceSet
from dapi.relay.scan import Scan, read_whole
from dapi.simulator.vllm.sender import callback_path, generated_body, vector_of

MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"


def with_artifacts(artifacts: bytes, *, more: bytes = b"") -> bytes:
    return b'{"block_height": 5, %s"artifacts": [%s]}' % (more, artifacts)


def facts_of(body: bytes, piece_bytes: int = 10**9) -> Facts:
    scan = Scan()
    for begin in range(0, len(body), piece_bytes):
        scan.feed(body[begin : begin + piece_bytes])
    return scan.facts()


class TargetTests(SynchronousTestCase):
    def test_model_and_kind(self) -> None:
        self.assertEqual(read_target(callback_path(MODEL, "generated").encode()), (MODEL, "generated"))
        odd = "a b:c@d+e&f=g$"
        self.assertEqual(read_target(callback_path(odd, "validated").encode() + b"?x=1"), (odd, "validated"))

    def test_what_cannot_be_read_is_none(self) -> None:
        for target, kind in (
            (b"/v2/poc-batches/generated", "generated"),
            (b"/v2/poc-batches/%2525FF%25FF/generated/", None),
            (b"/v2/poc-batches//generated", "generated"),
            (b"/v3/anything", None),
            (b"", None),
        ):
            self.assertEqual(read_target(target), (None, kind))

    def test_a_model_is_read_in_the_spellings_of_nodes_alone(self) -> None:
        """A container that unescapes once, or twice, or not always, reads the same in these, and not in others."""
        for spelling, model in (
            (b"Qwen%252FQwen3", "Qwen/Qwen3"),
            (b"Qwen%2FQwen3", "Qwen/Qwen3"),
            (b"%51wen%252FQwen3", None),
            (b"Qwen%252FQwen%33", None),
            (b"Qwen%252fQwen3", None),
            (b"%2FQwen%252FQwen3", None),
            (b"Qwen%25252FQwen3", "Qwen%2FQwen3"),
            (b"Qwen3%", None),
            (b"%25FF", None),
            (b"%FF", None),
            (b"caf%25C3%25A9", "caf\u00e9"),
        ):
            read = read_target(b"/v2/poc-batches/%s/generated" % spelling).model
            self.assertEqual(read, spelling.decode() if model is None else model)
        long = read_target(b"/v2/poc-batches/" + b"m" * 10_000 + b"/generated").model
        self.assertEqual(long, "m" * 512)

    def test_a_model_that_leads_elsewhere(self) -> None:
        # A name that leads elsewhere is a model like any other; no file is named after it.
        self.assertEqual(read_target(b"/v2/poc-batches/..%252F..%252Fetc/generated").model, "../../etc")


class ScanTests(SynchronousTestCase):
    def test_a_nodes_body(self) -> None:
        body = generated_body(1_728_000, 2, list(range(2, 302, 3)))
        self.assertEqual(facts_of(body), Facts(1_728_000, 2, range(2, 302, 3), None, 2, 3, 299, 100))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=60), st.integers(1, 400))
    def test_pieces_make_no_difference(self, nonces: list[int], piece_bytes: int) -> None:
        body = generated_body(1_728_000, 1, nonces)
        whole, pieces = facts_of(body), facts_of(body, piece_bytes)
        self.assertEqual((whole.height, whole.node_num, list(whole.nonces)), (1_728_000, 1, nonces))
        self.assertEqual(list(pieces.nonces), nonces)
        self.assertEqual((pieces.height, pieces.node_num, pieces.suspicion), (1_728_000, 1, None))

    def test_the_highest_stage_counts_in_any_spelling(self) -> None:
        """Whatever becomes of what is suspicious, it is for no stage that is not known."""
        body = b'{"block_height": 5, "BLOCK_HEIGHT" : 900, "block_height": 7}'
        self.assertEqual(facts_of(body).height, 900)

    def test_anything_at_all(self) -> None:
        for body in (b"", b"null", b"\x00" * 100_000, b"[" * 500_000, "ünïcödé".encode(), b"{}", b"\\ {"):
            self.assertEqual(facts_of(body, 1000), Facts())

    def test_suspicious_nonces(self) -> None:
        for nonce in (-1, 2**31):
            self.assertIn("a nonce is", str(facts_of(with_artifacts(b'{"nonce": %d, "x": 1}' % nonce)).suspicion))
        for nonce in (2**31 - 1, 0):
            self.assertIs(facts_of(with_artifacts(b'{"nonce": %d, "x": 1}' % nonce)).suspicion, None)

    def test_what_a_reader_of_json_may_read_otherwise_is_suspicious(self) -> None:
        """Of names in other cases, of two of a name, of what follows, and the like, the container makes its own."""
        artifact = b'{"nonce": 1, "vector_b64": "%s"}' % vector_of(1).encode()
        for odd in (
            generated_body(5, 1, [1]).replace(b"block_height", "bloc\u212a_height".encode()),
            generated_body(5, 1, [1]).replace(b"block_height", b"Block_Height"),
            generated_body(5, 1, [1]).replace(b"vector_b64", b"Vector_B64"),
            generated_body(5, 1, [1]).replace(b'"artifacts"', '"artifact\u017f"'.encode()),
            generated_body(5, 1, [1]).replace(b'"artifacts": [', b'"artifacts": [{"nonce": 8}], "artifacts": ['),
            generated_body(5, 1, [1]).replace(b'"node_id": 1', b'"node_id": 1, "node_id": 2'),
            generated_body(5, 1, [1]) + generated_body(9, 1, [4]),
            b"x" + generated_body(5, 1, [1]),
            b"[" + generated_body(5, 1, [1]) + b"]",
            b"<a><Nonce>5</Nonce></a>",
            with_artifacts(artifact.replace(b'"nonce": 1', b'"nonce": 1, "nonce": 4')[:-1] + b', "x": 1}'),
            with_artifacts(artifact[:-1] + b', "x": {"nonce": 7}}'),
            with_artifacts(b'{"vector_b64": "", "x": 1}'),
            with_artifacts(b'{"nonce": 1.0}'),
            with_artifacts(b"null, " + artifact),
            with_artifacts(b'{"": 0}, ' + artifact),
            with_artifacts(artifact, more=b'"node_id": "1", '),
            with_artifacts(artifact, more=b'"x": "{}", '),
            with_artifacts(artifact, more=b'"block_height":' + b" " * 700_000 + b"99, "),
        ):
            for piece_bytes in (10**9, 256 * 1024):
                self.assertIsNot(facts_of(odd, piece_bytes).suspicion, None, odd[:300])
            self.assertIs(read_whole(odd), None)

    def test_only_artifacts_in_their_list_count(self) -> None:
        others = b'"encoding": {"nonces": [{"nonce": 8, "vector_b64": ""}, {"nonce": 9}]}, "y": {"nonce": 4}, '
        found = facts_of(with_artifacts(b'{"nonce": 1, "later": [1, 2], "why": "a, b"}, {"nonce": 4}', more=others))
        self.assertEqual((found.nonces, found.suspicion, found.distinct), (range(1, 7, 3), None, 2))

    def test_a_nonce_that_is_there_again_is_one(self) -> None:
        body = generated_body(5, 1, [1, 1, 4, 1])
        self.assertEqual((facts_of(body).distinct, read_whole(body)), (2, facts_of(body)))

    def test_what_is_not_read_takes_no_memory_and_no_time(self) -> None:
        for odd in (b"{", b"}", b"{}", b"{},", b"[", b'"artifacts":[', b'{"nonce":7};', b'"a":{"nonce":', b"1,"):
            scan = Scan()
            for piece in (b'{"artifacts": [{', *[odd * (256 * 1024 // len(odd))] * 4):
                scan.feed(piece)
            held = len(scan._rest) + len(scan._carry)
            self.assertLess((len(scan._runs), held), (2049, 2**20), odd)
            self.assertIsNot(scan.facts().suspicion, None)

    def test_vectors(self) -> None:
        right = struct.pack("<12e", *range(12))
        for vector, is_right in (
            (right, True),
            (b"", True),
            (right[:-1], False),
            (right + b"\0\0", False),
            (b"abc", False),
            (struct.pack("<12e", *range(11), float("inf")), False),
            (struct.pack("<12e", float("nan"), *range(11)), False),
            (struct.pack("<12e", float("inf"), float("-inf"), *range(10)), False),
            (struct.pack("<12e", *[65504.0] * 12), True),
        ):
            good = base64.b64encode(right)
            artifacts = b'{"nonce": 1, "vector_b64": "%s"}, {"nonce": 4, "vector_b64": "%s"%s}'
            for more in (b"", b', "later": 1'):
                body = with_artifacts(artifacts % (good, base64.b64encode(vector), more))
                self.assertEqual(facts_of(body).suspicion is None, is_right, vector)
        self.assertIsNot(facts_of(with_artifacts(b'{"nonce": 1, "vector_b64": "%s"}' % (b"*" * 32))).suspicion, None)

    def test_later_versions_send_steps_in_place_of_vectors(self) -> None:
        body = (
            b'{"block_height": 5, "node_id": 3, "artifacts": [{"nonce": 3, "vector_b64": "", "k_points_steps": [5]}]}'
        )
        self.assertEqual(facts_of(body), Facts(5, 3, range(3, 4), None, 3, 0, 3, 1))


class ReadWholeTests(SynchronousTestCase):
    """What is decoded says the same as what is looked through."""

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 2**31 - 1), max_size=60), st.integers(0, 2**40), st.integers(0, 500))
    def test_it_says_what_the_scan_says(self, nonces: list[int], height: int, node_num: int) -> None:
        body = generated_body(height, node_num, nonces)
        self.assertEqual(read_whole(body), facts_of(body))

    def test_what_no_node_makes_is_not_read_so(self) -> None:
        body = generated_body(5, 3, [3, 6])
        for odd in (
            b"",
            b"{}",
            b"null",
            b"[" * 5000,
            body + b"x",
            body.replace(b"block_height", b"Block_Height"),
            body.replace(b"block_height", b"block_heigh\\u0074"),
            body.replace(b'"nonce": 6', b'"nonce": -6'),
            body.replace(b'"nonce": 6', b'"nonce": 99999999999'),
            body.replace(b'"nonce": 6', b'"nonce": 6.5'),
            body.replace(b"{", b'{"more": 1, ', 1),
        ):
            self.assertIsNone(read_whole(odd), odd[:60])

    def test_escapes_are_suspicious(self) -> None:
        """A field whose name is written with them is one for the container, and none for a search."""
        body = generated_body(5, 3, [3]).replace(b"block_height", b"block_heigh\\u0074")
        self.assertIn("escapes", facts_of(body).suspicion or "")

    def test_vectors(self) -> None:
        """Wrong ones are left to the scan, which says what is wrong."""
        right = generated_body(5, 3, [3]).partition(b'"vector_b64": "')[2][:32].decode()
        for odd in (
            "AAAA",
            "",
            right,
            right[:31],
            right[:31] + "=",
            right + right[:4],
            "/" * 32,
            "\u00e9" * 32,
            "AAA\n" * 8,
        ):
            body = (
                b'{"public_key": "k", "block_hash": "h", "block_height": 5, "node_id": 3, "artifacts": '
                b'[{"nonce": 3, "vector_b64": "%s"}, {"nonce": 6, "vector_b64": "%s"}]}'
            ) % (right.encode(), odd.encode())
            self.assertEqual(read_whole(body) is not None, odd == right, odd)
            self.assertEqual(facts_of(body).suspicion is None, odd in ("", right), odd)

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
    def test_what_it_reads_of_a_body_with_a_fault_the_scan_reads_too(self, place: int, fault: bytes) -> None:
        body = generated_body(1_728_000, 5, list(range(5, 60, 17)))
        place %= len(body)
        wrong = body[:place] + fault + body[place + len(fault) :]
        # A brace within a text is beyond the scan, which says so.
        if (found := read_whole(wrong)) is not None and not re.search(rb"[{}]", fault):
            self.assertEqual(found, facts_of(wrong))


class NonceSetTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 5000), max_size=50)), max_size=10))
    def test_it_counts_as_sets_do(self, groups: list[tuple[bool, list[int]]]) -> None:
        nonces, sent, taken = NonceSet(), set[int](), set[int]()
        for is_taken, group in groups:
            if is_taken:
                self.assertEqual(nonces.take(group), len(set(group) - taken))
                taken |= set(group)
            else:
                nonces.send(group)
            sent |= set(group)
            self.assertEqual((nonces.sent, nonces.taken), (len(sent), len(taken)))

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.integers(1, 7), st.integers(0, 40)), max_size=10))
    def test_a_range_counts_as_its_numbers_do(self, groups: list[tuple[bool, int, int, int]]) -> None:
        ranges, lists = NonceSet(), NonceSet()
        for is_taken, first, step, length in groups:
            group = range(first, first + step * length, step)
            if is_taken:
                self.assertEqual(ranges.take(group), lists.take(list(group)))
            else:
                ranges.send(group)
                lists.send(list(group))
            self.assertEqual((ranges.sent, ranges.taken), (lists.sent, lists.taken))

    def test_ranges(self) -> None:
        nonces = NonceSet()
        nonces.send(range(1, 31, 3))
        self.assertEqual((nonces.sent, nonces.taken), (10, 0))
        self.assertEqual(nonces.take(range(1, 61, 3)), 20)
        nonces.send(range(1, 61, 3))
        self.assertEqual(nonces.take(range(1, 61, 3)), 0)
        self.assertEqual(nonces.take(range(0)), 0)
        self.assertEqual((nonces.sent, nonces.taken), (20, 20))

    def test_one_that_cannot_be_remembered_takes_no_memory(self) -> None:
        for odd in ([2**31 - 1], [-1, 5], range(-3, 6, 3)):
            nonces = NonceSet()
            nonces.send(odd)
            self.assertEqual((nonces.take(odd), nonces.taken, nonces.is_exact, len(nonces._flags)), (0, 0, False, 0))
