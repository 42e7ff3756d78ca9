"""Transactions are, byte for byte, what other implementations make of the same values, read and verify."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from cosmospy_protobuf.cosmos.authz.v1beta1 import tx_pb2 as authz_pb2
from cosmospy_protobuf.cosmos.crypto.secp256k1 import keys_pb2
from cosmospy_protobuf.cosmos.tx.v1beta1 import tx_pb2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain import transactions
from dapi.chain.keyring import SigningKey
from dapi.chain.transactions import BATCH_TYPE_URL, VALIDATION_TYPE_URL, TimestampSource, TransactionSigner
from dapi.messages import cosmos_pb2, inference_pb2

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "transactions.json").read_text("utf-8")
)
PARTICIPANT = SigningKey(b"\x01" * 32)
WARM = SigningKey(b"\x02" * 32)
SECOND = 1_000_000_000

Message = inference_pb2.MsgSubmitPocBatch | inference_pb2.MsgSubmitPocValidation

int64s = st.integers(0, 2**63 - 1)
distances = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
generated = st.builds(
    inference_pb2.MsgSubmitPocBatch,
    poc_stage_start_block_height=int64s,
    batch_id=texts,
    nonces=st.lists(int64s, max_size=40),
    dist=st.lists(distances, max_size=40),
    node_id=texts,
)
validated = st.builds(
    inference_pb2.MsgSubmitPocValidation,
    participant_address=st.just(WARM.address),
    poc_stage_start_block_height=int64s,
    r_target=distances,
    fraud_threshold=distances,
    n_invalid=int64s,
    probability_honest=distances,
    fraud_detected=st.booleans(),
)
message_lists = st.lists(generated | validated, min_size=1, max_size=5)
timeouts = st.integers(1, 2**34 * SECOND)


def unknown_fields(message: Any) -> Iterable[Any]:
    """The fields that the message's type does not know; the stubs do not say that they can be iterated over."""
    fields: Any = UnknownFieldSet(message)
    return cast(Iterable[Any], fields)


def type_url(message: Message) -> str:
    return f"/inference.inference.{message.DESCRIPTOR.name}"


def encoded(messages: Sequence[Message]) -> list[tuple[str, bytes]]:
    return [(type_url(message), message.SerializeToString()) for message in messages]


def with_creator(message: Message, creator: str) -> bytes:
    full = copy.deepcopy(message)
    full.creator = creator
    return full.SerializeToString()


def sizes(messages: Sequence[tuple[str, bytes]]) -> list[tuple[str, int]]:
    return [(url, len(value)) for url, value in messages]


def signer_of(vector: dict[str, Any]) -> TransactionSigner:
    return TransactionSigner(
        SigningKey(bytes.fromhex(vector["secret"])),
        vector["chain_id"],
        int(vector["account_number"]),
        vector["participant"],
        int(vector["gas_limit"]),
    )


def messages_of(vector: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [(message["type_url"], bytes.fromhex(message["without_creator"])) for message in vector["messages"]]


def verify(public_key: bytes, signature: bytes, document: bytes) -> None:
    """Verify a signature with OpenSSL; raise InvalidSignature."""
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    point.verify(encode_dss_signature(r, s), document, ec.ECDSA(hashes.SHA256()))


class DocumentedTransactionTests(SynchronousTestCase):
    """The transaction that the network's document gives, typed from there."""

    def setUp(self) -> None:
        message = inference_pb2.MsgSubmitPocBatch(
            poc_stage_start_block_height=1000, batch_id="b-1", nonces=[7, 300], dist=[0.5, 1.25], node_id="node1"
        )
        signer = TransactionSigner(PARTICIPANT, "gonka-mainnet", 42, PARTICIPANT.address)
        self.signed = signer.sign(encoded([message]), 1700000060 * SECOND + 1)
        self.raw = cosmos_pb2.TxRaw.FromString(self.signed.raw)

    def test_key(self) -> None:
        self.assertEqual(
            PARTICIPANT.public_key.hex(), "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
        )
        self.assertEqual(PARTICIPANT.address, "gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p")

    def test_body(self) -> None:
        self.assertEqual(
            self.raw.body_bytes.hex(),
            "0a7e0a262f696e666572656e63652e696e666572656e63652e4d73675375626d6974506f63426174636812540a2c676f6e6b613130"
            "786371707a726b793665666632673532716479653533786b6b396a786b76723334617a387010e8071a03622d31220307ac022a1000"
            "0000000000e03f000000000000f43f32056e6f64653120012a0808bce2cfaa061001",
        )

    def test_auth_info(self) -> None:
        self.assertEqual(
            self.raw.auth_info_bytes.hex(),
            "0a4e0a460a1f2f636f736d6f732e63727970746f2e736563703235366b312e5075624b657912230a21031b84c5567b126440995d3e"
            "d5aaba0565d71e1834604819ff9c17f5e9d5dd078f12040a0208011206108094ebdc03",
        )

    def test_signature_and_hash(self) -> None:
        self.assertEqual(
            [signature.hex() for signature in self.raw.signatures],
            [
                "4fdeed33c95ea7499bcabe149a27b2b13c2b20c07e872617abd2bf988c79d80f"
                "58e403a0bdac3651f77e616ca4e05498c9c4471aa533fe376546c419454623d6"
            ],
        )
        self.assertEqual(self.signed.hash, "2B0C2B667080BC813C204C583F65C06EF3E02D666A3C6721B28149E3037E3D82")
        self.assertEqual(len(self.signed.raw), 299)
        self.assertEqual(self.signed.timeout_ns, 1700000060000000001)


class VectorTests(SynchronousTestCase):
    """Transactions made by another implementation: see tests/vectors/README.md."""

    def test_all_cases_are_there(self) -> None:
        wrapped = [vector["name"] for vector in VECTORS if vector["signer"] != vector["participant"]]
        self.assertEqual(wrapped, ["one batch, warm key", "several messages, warm key"])
        self.assertEqual(len(VECTORS), 7)

    def test_same_bytes_and_hash(self) -> None:
        for vector in VECTORS:
            signed = signer_of(vector).sign(messages_of(vector), int(vector["timeout_ns"]))
            self.assertEqual(signed.raw.hex(), vector["raw"], vector["name"])
            self.assertEqual(signed.hash, vector["hash"])

    def test_sizes(self) -> None:
        for vector in VECTORS:
            bound = signer_of(vector).size_of(sizes(messages_of(vector)))
            slack = bound - len(bytes.fromhex(vector["raw"]))
            self.assertIn(slack, range(7), vector["name"])

    def test_what_the_other_implementation_reads(self) -> None:
        for vector in VECTORS:
            read = vector["decoded"]
            self.assertIs(read["unordered"], True)
            self.assertEqual((read["memo"], read["timeout_height"]), ("", "0"))
            self.assertEqual(read["timeout_ns"], vector["timeout_ns"])
            carried = [message["type_url"] for message in vector["messages"]]
            is_granted = vector["signer"] != vector["participant"]
            self.assertEqual(read["messages"], [transactions.EXEC_TYPE_URL] * len(carried) if is_granted else carried)
            (signer,) = vector["decoded"]["auth_info"]["signerInfos"]
            self.assertEqual(signer["sequence"], "0")
            self.assertEqual(signer["modeInfo"], {"single": {"mode": "SIGN_MODE_DIRECT"}})
            self.assertEqual(vector["decoded"]["auth_info"]["fee"]["gasLimit"], vector["gas_limit"])

    def test_messages_of_the_network(self) -> None:
        for vector in VECTORS:
            for message in vector["messages"]:
                fields = dict(message["fields"])
                fields["poc_stage_start_block_height"] = int(fields.pop("height"))
                if message["type_url"] == BATCH_TYPE_URL:
                    fields["nonces"] = [int(nonce) for nonce in fields["nonces"]]
                    made: Message = inference_pb2.MsgSubmitPocBatch(**fields)
                else:
                    fields["n_invalid"] = int(fields["n_invalid"])
                    made = inference_pb2.MsgSubmitPocValidation(**fields)
                self.assertEqual(encoded([made]), [(message["type_url"], bytes.fromhex(message["without_creator"]))])


class TransactionPropertyTests(SynchronousTestCase):
    """Whatever is signed, a Cosmos library that shares no code with dapi reads, and OpenSSL verifies."""

    @given(messages=message_lists, timeout_ns=timeouts, is_granted=st.booleans())
    @settings(deadline=None, max_examples=60)
    def test_decodes_and_verifies(self, messages: list[Message], timeout_ns: int, is_granted: bool) -> None:
        key = WARM if is_granted else PARTICIPANT
        signed = TransactionSigner(key, "gonka-mainnet", 42, PARTICIPANT.address).sign(encoded(messages), timeout_ns)
        raw = tx_pb2.TxRaw.FromString(signed.raw)
        self.assertEqual(hashlib.sha256(signed.raw).hexdigest().upper(), signed.hash)

        body = tx_pb2.TxBody.FromString(raw.body_bytes)
        carried = list(body.messages)
        if is_granted:
            grants = [authz_pb2.MsgExec.FromString(wrapper.value) for wrapper in body.messages]
            self.assertEqual({wrapper.type_url for wrapper in body.messages}, {"/cosmos.authz.v1beta1.MsgExec"})
            self.assertEqual({grant.grantee for grant in grants}, {WARM.address})
            carried = [message for grant in grants for message in grant.msgs]
        self.assertEqual(
            [(message.type_url, message.value) for message in carried],
            [(type_url(message), with_creator(message, PARTICIPANT.address)) for message in messages],
        )
        self.assertEqual((body.memo, body.timeout_height), ("", 0))
        # The library is older than unordered transactions: it keeps their two fields as they came.
        unknown = {field.field_number: field.data for field in unknown_fields(body)}
        self.assertEqual(set(unknown), {4, 5})
        self.assertEqual(unknown[4], 1)
        timeout = Timestamp.FromString(unknown[5])
        self.assertEqual(timeout.seconds * SECOND + timeout.nanos, timeout_ns)

        auth_info = tx_pb2.AuthInfo.FromString(raw.auth_info_bytes)
        (signer,) = auth_info.signer_infos
        self.assertEqual(signer.public_key.type_url, "/cosmos.crypto.secp256k1.PubKey")
        self.assertEqual(keys_pb2.PubKey.FromString(signer.public_key.value).key, key.public_key)
        self.assertEqual((signer.mode_info.single.mode, signer.sequence), (1, 0))
        self.assertEqual((auth_info.fee.gas_limit, list(auth_info.fee.amount)), (1_000_000_000, []))

        document = tx_pb2.SignDoc(
            body_bytes=raw.body_bytes,
            auth_info_bytes=raw.auth_info_bytes,
            chain_id="gonka-mainnet",
            account_number=42,
        ).SerializeToString()
        (signature,) = raw.signatures
        verify(key.public_key, signature, document)
        self.assertRaises(InvalidSignature, verify, key.public_key, signature, document + b" ")

    @given(messages=message_lists, timeout_ns=timeouts, is_granted=st.booleans())
    @settings(deadline=None, max_examples=60)
    def test_is_canonical(self, messages: list[Message], timeout_ns: int, is_granted: bool) -> None:
        """Every level is in ascending order of fields, none of them a default."""
        key = WARM if is_granted else PARTICIPANT
        signed = TransactionSigner(key, "c", 0, PARTICIPANT.address).sign(encoded(messages), timeout_ns)
        raw = cosmos_pb2.TxRaw.FromString(signed.raw)
        body = cosmos_pb2.TxBody.FromString(raw.body_bytes)
        auth_info = cosmos_pb2.AuthInfo.FromString(raw.auth_info_bytes)
        self.assertEqual(raw.SerializeToString(deterministic=True), signed.raw)
        self.assertEqual(body.SerializeToString(deterministic=True), raw.body_bytes)
        self.assertEqual(auth_info.SerializeToString(deterministic=True), raw.auth_info_bytes)
        for message in (signed.raw, raw.body_bytes, raw.auth_info_bytes, body.messages[0].SerializeToString()):
            # A type that knows no field shows them all, in the order they came in.
            fields = [field.field_number for field in unknown_fields(Empty.FromString(message))]
            self.assertEqual(fields, sorted(fields))

    @given(messages=message_lists, timeout_ns=timeouts, is_granted=st.booleans(), number=st.integers(0, 2**64 - 1))
    @settings(deadline=None, max_examples=60)
    def test_size_is_known_before(
        self, messages: list[Message], timeout_ns: int, is_granted: bool, number: int
    ) -> None:
        signer = TransactionSigner(WARM if is_granted else PARTICIPANT, "c", number, PARTICIPANT.address)
        values = encoded(messages)
        size = len(signer.sign(values, timeout_ns).raw)
        self.assertIn(signer.size_of(sizes(values)) - size, range(13))
        longest = signer.sign(values, (2**34 + 1) * SECOND - 1)
        self.assertEqual(signer.size_of(sizes(values)), len(longest.raw))

    def test_size_where_lengths_take_another_byte(self) -> None:
        for granted in (False, True):
            signer = TransactionSigner(WARM if granted else PARTICIPANT, "c", 1, PARTICIPANT.address)
            for length in [*range(1, 140), *range(16_000, 16_400, 7), *range(2_096_900, 2_097_200, 31)]:
                values = [(VALIDATION_TYPE_URL, b"\x12" * length)]
                longest = signer.sign(values, (2**34 + 1) * SECOND - 1)
                self.assertEqual(signer.size_of(sizes(values)), len(longest.raw))

    @given(messages=message_lists, timeout_ns=timeouts)
    @settings(deadline=None, max_examples=20)
    def test_same_arguments_same_bytes(self, messages: list[Message], timeout_ns: int) -> None:
        signer = TransactionSigner(WARM, "c", 1, PARTICIPANT.address)
        first, second = (signer.sign(encoded(messages), timeout_ns) for _ in range(2))
        self.assertEqual(first, second)
        self.assertNotEqual(first.hash, signer.sign(encoded(messages), timeout_ns + 1).hash)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.signer = TransactionSigner(PARTICIPANT, "c", 1, PARTICIPANT.address)

    def test_no_message(self) -> None:
        self.assertRaises(ValueError, self.signer.sign, [], SECOND)

    def test_a_message_that_has_a_creator(self) -> None:
        message = with_creator(inference_pb2.MsgSubmitPocBatch(batch_id="b"), WARM.address)
        error = self.assertRaises(ValueError, self.signer.sign, [(BATCH_TYPE_URL, message)], SECOND)
        self.assertNotIn(WARM.address, str(error))

    def test_the_bytes_are_not_in_the_repr(self) -> None:
        signed = self.signer.sign([(BATCH_TYPE_URL, b"\x1a\x01b")], SECOND)
        self.assertEqual(repr(signed), f"SignedTransaction(hash='{signed.hash}', timeout_ns={SECOND})")

    def test_type_urls(self) -> None:
        self.assertEqual(type_url(inference_pb2.MsgSubmitPocBatch()), transactions.BATCH_TYPE_URL)
        self.assertEqual(type_url(inference_pb2.MsgSubmitPocValidation()), transactions.VALIDATION_TYPE_URL)


class TimestampSourceTests(SynchronousTestCase):
    block_time = 1_764_000_000 * SECOND + 5

    @given(
        seed=st.integers(),
        last=st.integers(-120 * SECOND, 700 * SECOND),
        steps=st.lists(st.tuples(st.integers(-3, 20), st.integers(1, 60)), max_size=12),
    )
    @settings(deadline=None)
    def test_unique_ascending_and_within_limits(self, seed: int, last: int, steps: list[tuple[int, int]]) -> None:
        block_time = self.block_time
        source = TimestampSource(random.Random(seed), last=block_time + last)
        floor = source.last
        for seconds, count in steps:
            block_time += seconds * SECOND
            for _ in range(count):
                if floor > block_time + 600 * SECOND:
                    # It was made for a time that the chain does not have.
                    floor = 0
                timestamp = source.next(block_time)
                if timestamp is None:
                    self.assertGreater(floor + TimestampSource.STEP_NS, block_time + 600 * SECOND)
                    continue
                self.assertGreater(timestamp, floor)
                self.assertGreaterEqual(timestamp, block_time + 60 * SECOND)
                self.assertLessEqual(timestamp, block_time + 600 * SECOND)
                floor = timestamp
            self.assertEqual(source.last, floor)

    def test_the_first_lies_within_a_second(self) -> None:
        for seed in range(50):
            timestamp = TimestampSource(random.Random(seed)).next(self.block_time)
            assert timestamp is not None
            self.assertIn(timestamp - self.block_time - 60 * SECOND, range(SECOND))

    def test_two_processes_with_one_key(self) -> None:
        first, second = (TimestampSource(random.Random(seed)) for seed in (1, 2))
        taken = [source.next(self.block_time) for _ in range(2_000) for source in (first, second)]
        self.assertNotIn(None, taken)
        self.assertEqual(len(set(taken)), 4_000)

    def test_two_processes_that_start_from_the_same_floor(self) -> None:
        floor = self.block_time + 61 * SECOND
        sources = [TimestampSource(random.Random(seed), last=floor) for seed in (1, 2)]
        taken = {source.next(self.block_time) for _ in range(200) for source in sources}
        self.assertEqual(len(taken), 400)

    def test_a_restart_in_the_same_block(self) -> None:
        before = TimestampSource(random.Random(1))
        taken = [before.next(self.block_time) for _ in range(100)]
        after = TimestampSource(random.Random(1), last=before.last)
        taken += [after.next(self.block_time) for _ in range(100)]
        self.assertEqual(len(set(taken)), 200)

    def test_a_last_one_that_the_chain_does_not_take_holds_none_up(self) -> None:
        source = TimestampSource(random.Random(1), last=2**62)
        first, second = (source.next(self.block_time) for _ in range(2))
        assert first is not None
        assert second is not None
        self.assertIn(first - self.block_time - 60 * SECOND, range(SECOND))
        self.assertGreater(second, first)

    def test_waits_for_a_block_when_none_is_left(self) -> None:
        source = TimestampSource(random.Random(1), last=self.block_time + 600 * SECOND - 1)
        while source.next(self.block_time) is not None:
            pass
        last = source.last
        self.assertLessEqual(last, self.block_time + 600 * SECOND)
        self.assertIsNone(source.next(self.block_time))
        self.assertEqual(source.last, last)
        later = source.next(self.block_time + SECOND)
        assert later is not None
        self.assertGreater(later, last)
