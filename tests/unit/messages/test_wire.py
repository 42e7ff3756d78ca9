"""What ML nodes send is decoded strictly, and each refusal names the field."""

import json
import math
from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError
from dapi.messages import (
    GeneratedMessage,
    ValidatedMessage,
    decode_envelope,
    decode_generated,
    decode_validated,
    encode_ack,
    number_lists,
    wire,
)
from dapi.messages.wire import decode_large_envelope, decode_large_generated, decode_large_validated
from tests.batches import generated_fields, validated_batch, validated_fields

GENERATED_FIELDS = ("public_key", "block_hash", "block_height", "nonces", "dist", "node_id")
VALIDATED_FIELDS = (
    *GENERATED_FIELDS,
    "received_dist",
    "r_target",
    "fraud_threshold",
    "n_invalid",
    "probability_honest",
    "fraud_detected",
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


class AcceptedTests(SynchronousTestCase):
    def test_bare_generated_batch(self) -> None:
        batch = decode_generated(encoded(generated_fields(nonces=[7, 2**63 - 1, 0], dist=[0.5, 1, 1e-300])))
        self.assertEqual(batch.nonces, array("q", [7, 2**63 - 1, 0]))
        self.assertEqual(batch.dist, array("d", [0.5, 1.0, 1e-300]))
        self.assertEqual((batch.block_height, batch.node_num), (1000, 1))

    def test_bare_validated_batch(self) -> None:
        batch = decode_validated(encoded(validated_fields()))
        self.assertEqual(batch.received_dist, array("d", [0.25, 1.0]))
        self.assertIs(batch.fraud_detected, False)

    def test_envelopes_tell_their_kind_and_id(self) -> None:
        generated = decode_envelope(encoded({"type": "generated", "batch": generated_fields(), "id": "a-1"}))
        validated = decode_envelope(encoded({"id": "b-2", "batch": validated_fields(), "type": "validated"}))
        self.assertIsInstance(generated, GeneratedMessage)
        self.assertIsInstance(validated, ValidatedMessage)
        self.assertEqual((generated.id, validated.id), ("a-1", "b-2"))

    def test_unknown_fields_are_ignored(self) -> None:
        plain = decode_generated(encoded(generated_fields()))
        self.assertEqual(decode_generated(encoded(generated_fields() | {"gpu": [{"deep": None}]})), plain)

    def test_no_nonce_is_a_valid_batch(self) -> None:
        self.assertEqual(decode_generated(encoded(generated_fields(nonces=[], dist=[]))).nonces, array("q"))

    def test_sum_that_overflows_is_no_infinity(self) -> None:
        batch = decode_generated(encoded(generated_fields(nonces=[1, 2], dist=[1.7e308, 1.7e308])))
        self.assertEqual(batch.dist, array("d", [1.7e308, 1.7e308]))

    def test_nan_in_the_lists_of_a_verdict(self) -> None:
        for name in ("dist", "received_dist"):
            fields = validated_fields() | {name: [0.5, math.nan]}
            bare = decode_validated(encoded(fields))
            enveloped = decode_envelope(encoded({"type": "validated", "batch": fields, "id": "x"}))
            self.assertTrue(math.isnan(getattr(bare, name)[1]))
            self.assertTrue(bare.has_nan())
            self.assertTrue(enveloped.batch.has_nan())  # type: ignore[union-attr]
        self.assertFalse(decode_validated(encoded(validated_fields())).has_nan())

    def test_nan_anywhere_in_a_long_verdict(self) -> None:
        self.patch(wire, "_SUMMED", 3)
        for place in range(11):
            dist = [1.0] * 11
            self.assertFalse(validated_batch(nonces=[1] * 11, dist=dist, received_dist=dist).has_nan())
            dist[place] = math.nan
            self.assertTrue(validated_batch(nonces=[1] * 11, dist=dist, received_dist=[1.0] * 11).has_nan(), place)

    def test_a_large_one_is_decoded_to_the_same(self) -> None:
        can_be_read_in_pieces = number_lists.parser_class is not None
        nonces, dist = list(range(1000)), [0.5] * 1000
        generated = encoded(generated_fields(nonces=nonces, dist=dist))
        validated = encoded(validated_fields(nonces=nonces, dist=dist, received_dist=dist))
        self.assertEqual(decode_large_generated(generated), (decode_generated(generated), can_be_read_in_pieces))
        self.assertEqual(decode_large_validated(validated), (decode_validated(validated), can_be_read_in_pieces))
        message = b'{"type": "generated", "batch": ' + generated + b', "id": "x"}'
        self.assertEqual(decode_large_envelope(message), (decode_envelope(message), can_be_read_in_pieces))
        for length, is_read_in_pieces in ((2, False), (1000, can_be_read_in_pieces)):
            lists = {"nonces": nonces[:length], "dist": [*dist[1:length], math.nan], "received_dist": dist[:length]}
            batch, was_read_in_pieces = decode_large_validated(encoded(validated_fields(**lists)))
            self.assertEqual((batch.has_nan(), was_read_in_pieces), (True, is_read_in_pieces))
        with self.assertRaisesRegex(MessageError, "^\\$.dist: is missing$"):
            decode_large_generated(generated.replace(b'"dist"', b'"other"'))

    def test_ack_carries_the_id_as_the_node_reads_it(self) -> None:
        self.assertEqual(json.loads(encode_ack('we"ird')), {"type": "ack", "id": 'we"ird'})


class RefusedTests(SynchronousTestCase):
    def refused(self, payload: bytes, field: str, *, envelope: bool = False, validated: bool = False) -> MessageError:
        decode = decode_envelope if envelope else decode_validated if validated else decode_generated
        error: MessageError = self.assertRaises(MessageError, decode, payload)
        self.assertEqual(error.field, field, str(error))
        self.assertIn(field, str(error))
        return error

    def test_missing_fields(self) -> None:
        for name in GENERATED_FIELDS:
            fields = generated_fields()
            del fields[name]
            self.refused(encoded(fields), f"$.{name}")
            self.refused(encoded({"type": "generated", "batch": fields, "id": "x"}), f"$.batch.{name}", envelope=True)
        for name in VALIDATED_FIELDS:
            fields = validated_fields()
            del fields[name]
            self.refused(encoded(fields), f"$.{name}", validated=True)
        for name in ("type", "batch", "id"):
            message = {"type": "generated", "batch": generated_fields(), "id": "x"}
            del message[name]
            self.refused(encoded(message), f"$.{name}", envelope=True)

    def test_wrong_types(self) -> None:
        wrong: dict[str, list[Any]] = {
            "public_key": [1, None, ["a"]],
            "block_hash": [1, None],
            "block_height": ["1", 1.5, None],
            "nonces": ["1", None, 5],
            "dist": ["1", None, 5],
            "received_dist": [None, {}],
            "node_id": ["node1", None, 1.5],
            "r_target": ["1", None],
            "fraud_threshold": ["1", None],
            "n_invalid": [1.5, "1"],
            "probability_honest": ["1", None],
            "fraud_detected": [1, "true", None],
        }
        self.assertEqual(set(wrong), set(VALIDATED_FIELDS))
        for name, values in wrong.items():
            for value in values:
                self.refused(encoded(validated_fields() | {name: value}), f"$.{name}", validated=True)
                if name in GENERATED_FIELDS:
                    self.refused(encoded(generated_fields() | {name: value}), f"$.{name}")

    def test_bool_is_no_number(self) -> None:
        for name in ("block_height", "node_id", "n_invalid", "r_target", "fraud_threshold", "probability_honest"):
            self.refused(encoded(validated_fields() | {name: True}), f"$.{name}", validated=True)
        self.refused(encoded(generated_fields() | {"nonces": [1, True]}), "$.nonces[1]")
        self.refused(encoded(generated_fields() | {"dist": [False, 1.0]}), "$.dist[0]")

    def test_not_finite(self) -> None:
        for literal in ("NaN", "Infinity", "-Infinity", "1e999"):
            text = json.dumps(generated_fields()).replace("0.5", literal)
            self.refused(text.encode(), "$.dist[0]")
        for name in ("r_target", "fraud_threshold", "probability_honest"):
            for value in (math.nan, math.inf):
                error = self.refused(encoded(validated_fields() | {name: value}), f"$.{name}", validated=True)
                self.assertEqual(error.reason, f"is {value}, not a finite number")
        for name in ("dist", "received_dist"):
            error = self.refused(encoded(validated_fields() | {name: [1.0, math.inf]}), f"$.{name}[1]", validated=True)
            self.assertEqual(error.reason, "is inf, not a finite number")
            self.refused(encoded(validated_fields() | {name: [math.nan, -math.inf]}), f"$.{name}[1]", validated=True)
        self.refused(encoded(generated_fields() | {"nonces": [math.nan, 1]}), "$.nonces[0]")

    def test_nonce_outside_int64(self) -> None:
        for nonce in (2**63, -(2**63) - 1, 10**40):
            self.refused(encoded(generated_fields() | {"nonces": [1, nonce]}), "$.nonces[1]")

    def test_lists_of_different_length(self) -> None:
        error = self.refused(encoded(generated_fields() | {"dist": [0.5]}), "$.dist")
        self.assertEqual(error.reason, "has 1 numbers, nonces has 2")
        message = {"type": "generated", "batch": generated_fields() | {"dist": [0.5]}, "id": "x"}
        self.refused(encoded(message), "$.batch.dist", envelope=True)
        self.refused(encoded(generated_fields() | {"nonces": []}), "$.dist")
        self.refused(encoded(validated_fields() | {"received_dist": [0.5]}), "$.received_dist", validated=True)

    def test_what_the_chain_takes_of_nobody(self) -> None:
        """docs/protocol/chain.md, 'Checks of messages': its transaction would fail, with other nodes' batches in it."""
        for count in (1, 2000):
            ones = [1] * count
            error = self.refused(
                encoded(generated_fields() | {"nonces": [*ones, -1], "dist": [*ones, 1]}), f"$.nonces[{count}]"
            )
            self.assertIn("is -1, and the chain takes no number below 0", error.reason)
            self.refused(
                encoded(generated_fields() | {"nonces": [*ones, 2], "dist": [*ones, -0.5]}), f"$.dist[{count}]"
            )

    def test_negative_height(self) -> None:
        self.refused(encoded(generated_fields() | {"block_height": -1}), "$.block_height")

    def test_invalid_utf8_even_where_nobody_reads(self) -> None:
        text = json.dumps(generated_fields() | {"extra": "?"}).encode()
        error = self.refused(text.replace(b"?", b"\xff"), "$")
        place = text.index(b"?")
        self.assertEqual(error.reason, f"invalid UTF-8 at byte {place}")

    def test_half_of_a_surrogate_pair(self) -> None:
        """It could be neither hashed nor acknowledged; json, which reads what has a NaN, lets it through."""
        for dist in ([0.5, 1.0], [0.5, math.nan]):
            text = json.dumps({"type": "validated", "batch": validated_fields() | {"dist": dist}, "id": "\ud800"})
            self.refused(text.encode(), "$", envelope=True)

    def test_unknown_type(self) -> None:
        for kind in ("ack", "Generated", ""):
            self.refused(encoded({"type": kind, "batch": generated_fields(), "id": "x"}), "$.type", envelope=True)

    def test_what_is_no_json_object(self) -> None:
        for payload in (b"", b"{", b"[]", b"null", b"\x00", b"{'a': 1}", b'{"a": NaN', b"[" * 200_000):
            self.refused(payload, "$", envelope=True)
            self.refused(payload, "$")
        for payload in (b'{"dist": [NaN}', b'{"dist": [1}'):
            error = self.refused(payload, "$")
            self.assertTrue(error.reason.startswith("JSON is malformed"), error.reason)

    def test_nested_too_deeply_even_where_nobody_reads(self) -> None:
        for begin in (b'{"extra": ', b'{"dist": [NaN], "extra": '):
            error = self.refused(begin + b"[" * 200_000, "$")
            self.assertEqual(error.reason, "nested too deeply")


class AcceptedByMsgspecTests(AcceptedTests):
    """All of it again where simdjson is not installed."""

    def setUp(self) -> None:
        self.patch(number_lists, "parser_class", None)


class RefusedByMsgspecTests(RefusedTests):
    """All of it again where simdjson is not installed."""

    def setUp(self) -> None:
        self.patch(number_lists, "parser_class", None)


class AnyBytesTests(SynchronousTestCase):
    @given(st.binary())
    def test_any_bytes_end_in_a_message_error(self, payload: bytes) -> None:
        for decode in (decode_envelope, decode_generated, decode_validated):
            self.assertRaises(MessageError, decode, payload)
