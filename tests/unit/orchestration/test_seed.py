"""The seed follows from the key and the epoch, and is kept once."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.keyring import SigningKey
from dapi.messages import Kind
from dapi.messages.seed_pb2 import MsgSubmitSeed
from dapi.orchestration.seed import seed_entry, seed_of


class FixedKey:
    """Signs everything with the same bytes."""

    def __init__(self, signature: bytes) -> None:
        self.signature = signature
        self.signed: list[bytes] = []

    def sign(self, data: bytes) -> bytes:
        self.signed.append(data)
        return self.signature


class SeedTests(SynchronousTestCase):
    def test_first_eight_bytes_without_the_highest_bit(self) -> None:
        key = FixedKey(b"\xff" * 64)
        self.assertEqual(seed_of(key, 258), 2**63 - 1)  # type: ignore[arg-type]
        self.assertEqual(key.signed, [b"\0\0\0\0\0\0\1\2"])

    def test_never_zero(self) -> None:
        self.assertEqual(seed_of(FixedKey(b"\x80" + b"\0" * 63), 1), 1)  # type: ignore[arg-type]

    def test_message_holds_the_signature_of_the_seed(self) -> None:
        key = SigningKey(b"\1" * 32)
        entry = seed_entry(key, 17, 680)
        message = MsgSubmitSeed.FromString(entry.message)
        self.assertEqual((message.creator, message.epoch_index), ("", 17))
        self.assertEqual(message.signature, key.sign(seed_of(key, 17).to_bytes(8, "big")).hex())
        self.assertEqual((entry.batch_id, entry.kind, entry.height), ("seed-17", Kind.SEED, 680))
        self.assertEqual(seed_entry(key, 17, 680), entry)
        self.assertNotEqual(seed_entry(key, 18, 680).message, entry.message)
