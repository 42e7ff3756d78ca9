"""The seed follows from the key and the epoch, and is kept once."""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.keyring import SigningKey
from dapi.errors import StoreBusyError
from dapi.messages import Kind, Receipt
from dapi.messages.seed_pb2 import MsgSubmitSeed
from dapi.orchestration.seed import Seeds, seed_entry, seed_of
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.phases.phases import ConfirmationEvent, EpochParameters, confirmation_stage, regular_stage


class FixedKey(SigningKey):
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
        self.assertEqual(seed_of(key, 258), 2**63 - 1)
        self.assertEqual(key.signed, [b"\0\0\0\0\0\0\1\2"])

    def test_never_zero(self) -> None:
        self.assertEqual(seed_of(FixedKey(b"\x80" + b"\0" * 63), 1), 1)

    def test_message_holds_the_signature_of_the_seed(self) -> None:
        key = SigningKey(b"\1" * 32)
        entry = seed_entry(key, 17, 680)
        message = MsgSubmitSeed.FromString(entry.message)
        self.assertEqual((message.creator, message.epoch_index), ("", 17))
        self.assertEqual(message.signature, key.sign(seed_of(key, 17).to_bytes(8, "big")).hex())
        self.assertEqual((entry.batch_id, entry.kind, entry.height), ("seed-17", Kind.SEED, 680))
        self.assertEqual(seed_entry(key, 17, 680), entry)
        self.assertNotEqual(seed_entry(key, 18, 680).message, entry.message)


class FakeOutbox(Outbox):
    """Takes entries as long as there is room."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.is_full = False

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        if self.is_full:
            return fail(StoreBusyError("the disk is full"))
        self.entries.append(entry.batch_id)
        return succeed(Receipt(entry.batch_id, 1))


class StoringTests(SynchronousTestCase):
    """Once an epoch, as soon as the disk takes it."""

    PARAMETERS = EpochParameters(400, 60, 5, 5, 20)

    def setUp(self) -> None:
        self.outbox = FakeOutbox()
        self.seeds = Seeds(self.outbox, SigningKey(b"\1" * 32))

    def store(self, epoch: int) -> object:
        stage = regular_stage(self.PARAMETERS, epoch, 400 * epoch)
        return self.successResultOf(Deferred.fromCoroutine(self.seeds.store(stage)))

    def test_once_an_epoch(self) -> None:
        for epoch in (1, 1, 2, 2):
            self.assertIsNone(self.store(epoch))
        self.assertEqual(self.outbox.entries, ["seed-1", "seed-2"])

    def test_a_full_disk_is_urgent_and_delays_it(self) -> None:
        self.outbox.is_full = True
        self.assertEqual(self.store(1), "the seed of epoch 1 is not kept yet: the disk is full")
        self.outbox.is_full = False
        self.assertIsNone(self.store(1))
        self.assertEqual(self.outbox.entries, ["seed-1"])

    def test_a_confirmation_has_none(self) -> None:
        stage = confirmation_stage(self.PARAMETERS, ConfirmationEvent(1, 700, 710, "ab"))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.seeds.store(stage))))
        self.assertEqual(self.outbox.entries, [])
