"""Numbers that simdjson reads are those that msgspec reads, and whatever simdjson does not take, msgspec decides."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from array import array
from collections.abc import Callable
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError
from dapi.messages import (
    Envelope,
    GeneratedMessage,
    ProofBatch,
    ValidatedBatch,
    ValidatedMessage,
    content_id,
    decode_envelope,
    decode_generated,
    decode_validated,
    number_lists,
)
from dapi.messages.columns import Typecode
from tests.batches import generated_fields, validated_fields

without_simdjson = skipIf(number_lists.parser_class is None, "simdjson is not installed")
Decode = Callable[[bytes], Envelope | ProofBatch | ValidatedBatch]
DECODERS: tuple[Decode, ...] = (decode_envelope, decode_generated, decode_validated)

# Numbers, and what looks like numbers, at which parsers differ.
TOKENS_AS_TEXT = """
    0 -0 -0.0 0.0 1 -1 01 -01 1. .5 - +1 1e5 1E+5 1e-5 1.0 1.5e300 1e308 1.7976931348623157e308 1.7976931348623159e308
    1e309 -1e309 1e999 1e-323 4.9e-324 2.4703282292062327e-324 2.4703282292062328e-324 1e-400 0e0 0e999 0e99999999999999
    1e-99999999999999 1e99999999999999 2.2250738585072011e-308 2.2250738585072014e-308 9007199254740993
    9007199254740993.0 9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809
    18446744073709551615 18446744073709551616 100000000000000000000000000000 123456789012345678901234567890.5
    0.1 0.30000000000000004 1.4013564660458173 5e-324 0x10 1_000 1,5 1e 1e+ 1.e5 1.5.5 --1 NaN -NaN Infinity -Infinity
    nan inf true false null "1" "" "[" "]" {} {"a":1} [] [1] [[1]] ] [ } { ' /*1*/ 1/2 \\u0031 १ 1\x00 \x001
"""
TOKENS = TOKENS_AS_TEXT.split()
SPACES = ("", " ", "\t\n\r ", "\x0b", "\xa0")


@st.composite
def number_list(draw: st.DrawFn) -> str:
    """A JSON list, mostly of numbers."""
    sound = st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr)
    )
    written = st.from_regex(r"\A-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z")
    items = draw(st.lists(st.one_of(sound, sound, written, st.sampled_from(TOKENS)), max_size=4))
    space = draw(st.sampled_from(SPACES))
    return f"[{space}{f'{space},'.join(items)}{space}]"


@st.composite
def batch_text(draw: st.DrawFn) -> bytes:
    """A batch, or an envelope: sound, or wrong in one or several places."""
    is_verdict = draw(st.booleans())
    fields = validated_fields() if is_verdict else generated_fields()
    texts = {name: json.dumps(value) for name, value in fields.items()}
    names = [name for name in ("nonces", "dist", "received_dist") if name in texts]
    for name in draw(st.sets(st.sampled_from(names))):
        texts[name] = draw(number_list())
    pairs = [(json.dumps(name), text) for name, text in texts.items()]
    extras = st.sampled_from(
        [
            ("extra", "[1]"),
            ("extra", '"["'),
            ("extra", '"]"'),
            ("a[0]", "1"),
            ("extra", '{"nonces": [5]}'),
            ("nonces", "[9, 9]"),
        ]
    )
    pairs += [(json.dumps(name), text) for name, text in draw(st.lists(extras, max_size=2))]
    body = ", ".join(f"{name}: {text}" for name, text in draw(st.permutations(pairs)))
    if draw(st.booleans()):
        kind = "validated" if is_verdict else draw(st.sampled_from(["generated", "validated", "ack"]))
        body = draw(
            st.sampled_from([f'"type": "{kind}", "batch": {{{body}}}, "id": "x"', f'"id": "[", "batch": {{{body}}}'])
        )
    text = bytearray(f"{{{body}}}".encode())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        place = draw(st.integers(0, len(text) - 1))
        text[place : place + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"[", b"]", b'"', b",", b"0", b"-", b"\\"])
        )
    return bytes(text)


def outcome(decode: Decode, payload: bytes) -> tuple[object, ...]:
    """What decoding ends in: the values to the bit, or the refusal."""
    try:
        decoded = decode(payload)
    except MessageError as error:
        return "refused", error.field, error.reason
    batch = decoded.batch if isinstance(decoded, GeneratedMessage | ValidatedMessage) else decoded
    lists = [
        (name, value.typecode, value.tobytes())
        for name in batch.__struct_fields__
        if isinstance(value := getattr(batch, name), array)
    ]
    return "taken", repr(decoded), content_id(batch), lists


def read_whole(text: bytes, typecode: Typecode, *, with_nan: bool = False) -> array[int] | array[float] | None:
    """Read a text that is one list, between other texts that are to be left alone."""
    place = number_lists.Place(3, 3 + len(text))
    return number_lists.read_column(b"[5," + text + b",6]", place, typecode, with_nan=with_nan)


class ComparedTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(number_lists, "MIN_BYTES", 0)

    def agree(self, payload: bytes) -> None:
        """Fail unless each decoder comes to the same with simdjson and without."""
        for decode in DECODERS:
            fast = outcome(decode, payload)
            parser_class, number_lists.parser_class = number_lists.parser_class, None
            try:
                slow = outcome(decode, payload)
            finally:
                number_lists.parser_class = parser_class
            self.assertEqual(fast, slow, payload)


@without_simdjson
class SameAsMsgspecTests(ComparedTestCase):
    def test_each_token_in_each_list(self) -> None:
        for token in TOKENS:
            for name in ("nonces", "dist", "received_dist"):
                fields = {**validated_fields(), name: ["#", 1]}
                for text in (json.dumps(fields), json.dumps({"type": "validated", "batch": fields, "id": "x"})):
                    self.agree(text.replace('"#"', token).encode())
                    self.agree(text.replace('["#", 1]', token).encode())

    def test_each_token_beside_nan(self) -> None:
        for token in TOKENS:
            for name in ("nonces", "dist", "received_dist"):
                text = json.dumps({**validated_fields(), name: ["#", math.nan]})
                self.agree(text.replace('"#"', token).encode())
                self.agree(json.dumps({**generated_fields(), "dist": ["#", math.nan]}).replace('"#"', token).encode())

    def test_order_and_space_of_fields(self) -> None:
        fields = generated_fields()
        for indent in (None, 2):
            for order in (fields, dict(reversed(fields.items()))):
                self.agree(json.dumps(order, indent=indent).encode())

    def test_field_that_comes_twice(self) -> None:
        text = json.dumps(generated_fields())
        for extra in ('"nonces": [8, 9]', '"nonces": 5', '"dist": [1.5, 2]', '"block_height": 3', '"x": [[1], "]"]'):
            self.agree(f"{{{extra}, {text[1:]}".encode())
            self.agree(f"{text[:-1]}, {extra}}}".encode())

    def test_list_that_is_part_of_a_text(self) -> None:
        """The numbers of a text must not become those of a field."""
        for name in ("public_key", "block_hash"):
            for missing in ("nonces", "dist"):
                fields = {**generated_fields(), name: "[7, 300]", missing: 0}
                self.agree(json.dumps(fields).encode())
                self.agree(json.dumps({**fields, missing: [0]}).encode())
        self.agree(
            json.dumps({"type": "generated", "batch": {**generated_fields(), "nonces": 0}, "id": "[1, 2]"}).encode()
        )

    def test_verdict_without_a_list_and_batch_with_one_more(self) -> None:
        verdict = validated_fields()
        del verdict["received_dist"]
        self.agree(json.dumps(verdict).encode())
        self.agree(json.dumps({**verdict, "other": [1, 2]}).encode())
        self.agree(json.dumps(generated_fields(received_dist=[1, 2])).encode())

    @given(st.binary())
    def test_any_bytes(self, payload: bytes) -> None:
        self.agree(payload)

    @given(batch_text())
    def test_any_text(self, payload: bytes) -> None:
        self.agree(payload)

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), st.data())
    def test_any_float_as_json_writes_it(self, dist: list[float], data: st.DataObject) -> None:
        form = data.draw(st.sampled_from(["%r", "%.3e", "%.17g", "%.40g", "%f", "%.800f"]))
        texts = [form % value for value in dist]
        self.agree(json.dumps(generated_fields(dist=["#"])).replace('["#"]', f"[{','.join(texts)}]").encode())


class NotInstalledTests(SynchronousTestCase):
    def test_msgspec_decodes_all_where_simdjson_is_not_installed(self) -> None:
        payload = json.dumps(generated_fields(nonces=list(range(500)), dist=[0.5] * 500)).encode()
        self.assertGreater(len(payload), number_lists.MIN_BYTES)
        code = (
            "import sys; sys.modules['simdjson'] = None\n"
            "from dapi.messages import content_id, decode_generated, number_lists\n"
            "assert number_lists.parser_class is None\n"
            "print(content_id(decode_generated(sys.stdin.buffer.read())))"
        )
        done = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=True)
        self.assertEqual(done.stdout.decode().strip(), content_id(decode_generated(payload)))


@without_simdjson
class SameInPiecesTests(ComparedTestCase):
    """The same with long lists, which are read in pieces: here nearly each number is one."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(number_lists, "PIECE_BYTES", 1)

    def test_commas(self) -> None:
        for text in (
            "[1,2,3]",
            "[1,2,]",
            "[,1,2]",
            "[1,,2]",
            "[1, ,2]",
            "[1,2, ]",
            "[]",
            "[ ]",
            "[,]",
            "[1 2,3]",
            "[1]",
        ):
            for name in ("nonces", "dist"):
                fields = {**generated_fields(), name: "#"}
                self.agree(json.dumps(fields).replace('"#"', text).encode())

    def test_a_long_list_is_read(self) -> None:
        numbers = list(range(10**6, 10**6 + 5000))
        for piece_bytes in (1, 7, 100, 10**6):
            self.patch(number_lists, "PIECE_BYTES", piece_bytes)
            for text in (json.dumps(numbers), json.dumps(numbers, separators=(",", ":"))):
                self.assertEqual(read_whole(text.encode(), "q"), array("q", numbers))


@without_simdjson
class ReadApartTests(SynchronousTestCase):
    """What nodes send is read by simdjson: else all of this would be for nothing."""

    def setUp(self) -> None:
        self.patch(number_lists, "MIN_BYTES", 0)

    def test_lists_of_a_node_are_read(self) -> None:
        payload = json.dumps(validated_fields()).encode()
        cut = number_lists.cut(payload)
        assert cut is not None
        self.assertEqual([number_lists.read_column(payload, place, "d") is not None for place in cut.lists], [True] * 3)
        self.assertEqual(number_lists.read_column(payload, cut.lists[0], "q"), array("q", [7, 300]))
        self.assertEqual(json.loads(cut.text)["dist"], [1])

    def test_msgspec_does_not_see_the_numbers(self) -> None:
        """Decoding costs no Python object for each of them."""
        payload = json.dumps(generated_fields(nonces=list(range(10**6, 10**6 + 500)), dist=[0.5] * 500)).encode()
        cut = number_lists.cut(payload)
        assert cut is not None
        self.assertLess(len(cut.text), 300)
        self.assertEqual(decode_generated(payload).nonces, array("q", range(10**6, 10**6 + 500)))

    def test_no_piece_is_longer_than_its_bound(self) -> None:
        """Between two of them another thread may have the interpreter."""
        pieces: list[bytes] = []
        usual = number_lists._read_piece

        def read_piece(numbers: bytes, typecode: Typecode) -> bytes | None:
            pieces.append(numbers)
            return usual(numbers, typecode)

        self.patch(number_lists, "_read_piece", read_piece)
        self.patch(number_lists, "PIECE_BYTES", 100)
        text = json.dumps(list(range(10**6, 10**6 + 500))).encode()
        self.assertEqual(read_whole(text, "q"), array("q", range(10**6, 10**6 + 500)))
        # Cut at the first comma behind so many bytes; brackets are put in for what was cut.
        self.assertLess(max(map(len, pieces)), 100 + len(b"[1000000, ]"))
        self.assertGreater(min(map(len, pieces[:-1])), 100)

    def test_small_texts_are_left_to_msgspec(self) -> None:
        self.patch(number_lists, "MIN_BYTES", 100)
        self.assertIsNone(number_lists.cut(b"[1]" + b" " * 96))
        self.assertIsNotNone(number_lists.cut(b"[1]" + b" " * 97))

    def test_what_is_left_to_msgspec(self) -> None:
        self.assertIsNone(number_lists.cut(b"{}"))
        self.assertIsNone(number_lists.cut(b"[" * 100_000))
        self.assertIsNone(number_lists.cut(b"[1][2][3][4]"))
        for text in (b"[1.5]", b"[true]", b"[9223372036854775808]", b"[[1]", b"[1,]", b"[{}]", b'["1"]', b"["):
            self.assertIsNone(read_whole(text, "q"), text)
        for text in (b"[NaN]", b"[1e309]", b"[null]", b"[-9223372036854775809]"):
            self.assertIsNone(read_whole(text, "d"), text)

    def test_nan_is_read_where_it_is_allowed(self) -> None:
        for text in (b"[NaN]", b"[ 1.5,NaN, 2]"):
            found = read_whole(text, "d", with_nan=True)
            assert found is not None
            self.assertEqual(repr(list(found)), repr(json.loads(text.decode(), parse_int=float)))
            self.assertIsNone(read_whole(text, "q", with_nan=True))
        huge = b"[NaN, 1" + b"0" * 400 + b"]"
        for text in (b'["NaN"]', b"[NaN, true]", b"[NaN, Infinity]", b"[NaN, 1e309]", b"[NaN,]", b"[-NaN]", huge):
            self.assertIsNone(read_whole(text, "d", with_nan=True), text)

    def test_nothing_infinite_is_read(self) -> None:
        for token in TOKENS:
            column = read_whole(f"[{token}]".encode(), "d")
            self.assertTrue(column is None or all(math.isfinite(value) for value in column), token)
