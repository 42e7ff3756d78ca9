"""Parameters that governance changes while a stage runs: docs/protocol/measured.md, 'Governance on a real chain'."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.queries import query
from dapi.simulator.chain.wire import message_field, varint_field
from tests.chain_tools import Key, validation
from tests.unit.simulator.chain.chain_in_memory import OK, ChainInMemory

EPOCH_INFO = "/inference.inference.Query/EpochInfo"


class StageTests(SynchronousTestCase):
    """The PoC of epoch 1 starts at 10; its batches are taken up to 22."""

    def setUp(self) -> None:
        self.network = ChainInMemory()

    def test_a_longer_window_holds_from_the_next_block_on(self) -> None:
        self.network.advance(15)
        self.network.state.govern(poc_stage_duration=14)
        self.assertEqual(self.network.deliver_at(26, self.network.batch()), OK)
        self.assertEqual(self.network.deliver_at(27, self.network.batch()), ("inference", 1108))
        verdict = validation(self.network.key.address, Key(2).address)
        self.assertEqual(self.network.deliver_at(32, verdict), OK)

    def test_a_shorter_window_ends_at_once(self) -> None:
        self.network.advance(15)
        self.network.state.govern(poc_exchange_duration=0, poc_stage_duration=5)
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch())), ("inference", 1108))

    def test_earlier_heights_are_asked_for_with_what_held_then(self) -> None:
        self.network.advance(15)
        self.network.state.govern(poc_stage_duration=14)
        self.network.advance(16)

        def durations(height: int) -> bytes:
            return query(self.network.state, EPOCH_INFO, b"", height, 16)

        self.assertIn(varint_field(5, 10) + varint_field(6, 2), durations(14))
        self.assertIn(varint_field(5, 14) + varint_field(6, 2), durations(16))

    def test_another_epoch_length_during_a_poc_breaks_the_chain(self) -> None:
        self.network.advance(15)
        self.assertRaises(ValueError, self.network.state.govern, epoch_length=60)
        self.network.advance(30)
        self.network.state.govern(epoch_length=60)
        latest = message_field(3, varint_field(1, 1) + varint_field(2, 10))
        self.network.advance(69)
        self.assertTrue(query(self.network.state, EPOCH_INFO, b"", 69, 69).endswith(latest))
        self.assertEqual(self.network.deliver_at(71, self.network.batch(height=70)), OK)


class EpochsTests(SynchronousTestCase):
    def test_a_changed_length_counts_from_the_current_epoch_on(self) -> None:
        epochs = Epochs(10, EpochParams()).changed(115, EpochParams(epoch_length=100))
        self.assertEqual(
            [(epochs.after(height).index, epochs.after(height).start) for height in (115, 189, 190, 290)],
            [(3, 90), (3, 90), (4, 190), (5, 290)],
        )

    def test_before_the_first_epoch_nothing_has_to_be_kept(self) -> None:
        epochs = Epochs(10, EpochParams()).changed(5, EpochParams(epoch_length=100))
        self.assertEqual(epochs, Epochs(10, EpochParams(epoch_length=100)))

    def test_which_epoch_is_the_current_one(self) -> None:
        epochs = Epochs(10, EpochParams())
        self.assertEqual([epochs.effective_at(height) for height in (5, 11, 29, 30, 69, 70)], [0, 0, 0, 1, 1, 2])
