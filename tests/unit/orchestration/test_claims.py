"""Which epoch is paid for follows from the height alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.messages.host_pb2 import MsgClaimRewards
from dapi.orchestration.claims import DueClaim, claim_entry, due_claim
from dapi.orchestration.seed import seed_of
from dapi.phases.phases import EpochInfo, EpochParameters
from tests.unit.orchestration.conductor_case import KEY

PARAMETERS = EpochParameters(
    epoch_length=40,
    poc_stage_duration=10,
    poc_exchange_duration=2,
    poc_validation_delay=2,
    poc_validation_duration=6,
    set_new_validators_delay=1,
)


def due(height: int, index: int, poc_start: int) -> DueClaim | None:
    return due_claim(EpochInfo(height, index, poc_start, PARAMETERS, 200, None))


class DueClaimTests(SynchronousTestCase):
    def test_from_the_block_that_sets_new_validators_to_the_next_such(self) -> None:
        # Epoch 3's PoC starts at 100, and its validators are set with block 119: the claim can be in block 120.
        self.assertEqual(due(118, 3, 100), DueClaim(1, 60))
        self.assertEqual(due(119, 3, 100), DueClaim(2, 100))
        self.assertEqual(due(139, 3, 100), DueClaim(2, 100))
        self.assertEqual(due(140, 4, 140), DueClaim(2, 100))
        self.assertEqual(due(158, 4, 140), DueClaim(2, 100))
        self.assertEqual(due(159, 4, 140), DueClaim(3, 140))

    def test_nothing_is_paid_for_epoch_0(self) -> None:
        self.assertIsNone(due(5, 0, 0))
        self.assertIsNone(due(25, 1, 20))
        self.assertIsNone(due(50, 1, 20))
        self.assertIsNone(due(61, 2, 60))
        self.assertEqual(due(79, 2, 60), DueClaim(1, 60))

    def test_entry(self) -> None:
        entry = claim_entry(KEY, DueClaim(2, 100))
        self.assertEqual((entry.batch_id, entry.kind, entry.height), ("claim-2", Kind.CLAIM, 100))
        message = MsgClaimRewards.FromString(entry.message)
        self.assertEqual((message.creator, message.seed, message.epoch_index), ("", seed_of(KEY, 2), 2))
