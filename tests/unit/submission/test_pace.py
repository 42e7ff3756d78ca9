"""How much is sent follows what the chain takes."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.submission.pace import Pace, max_size
from dapi.submission.settings import SubmitterSettings

FULL = "mempool is full: number of txs 0 (max: 5000), total txs bytes 0 (max: 60000)"
TOO_LARGE = "Tx too large. Max size is 30000, but got 65691"


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.settings = SubmitterSettings()
        self.pace = Pace(self.settings)

    def confirm(self, number: int) -> None:
        for _ in range(number):
            self.pace.confirmed()

    def test_the_number_doubles_with_each_block_that_takes_all_up_to_its_bound(self) -> None:
        first = self.pace.transactions
        self.confirm(first)
        self.assertEqual(self.pace.transactions, 2 * first)
        self.confirm(10_000)
        self.assertEqual(self.pace.transactions, self.settings.max_in_flight)

    def test_a_full_mempool_brings_it_back_to_what_the_mempools_have(self) -> None:
        self.confirm(100)
        self.pace.mempool_is_full(20)
        self.assertEqual(self.pace.transactions, 20)
        self.pace.mempool_is_full(0)
        self.assertEqual(self.pace.transactions, 4)
        self.pace.mempool_is_full(50)
        self.assertEqual(self.pace.transactions, 4)

    def test_room_is_for_a_number_and_for_bytes(self) -> None:
        self.assertTrue(self.pace.has_room(0, 0))
        self.assertTrue(self.pace.has_room(self.pace.transactions - 1, 0))
        self.assertFalse(self.pace.has_room(self.pace.transactions, 0))
        most = self.settings.max_in_flight_bytes - self.pace.max_bytes
        self.assertTrue(self.pace.has_room(1, most))
        self.assertFalse(self.pace.has_room(1, most + 1))

    def test_a_node_that_says_what_it_takes_is_believed(self) -> None:
        self.assertTrue(self.pace.too_large(65_691, TOO_LARGE))
        self.assertEqual(self.pace.max_bytes, 30_000)
        self.assertEqual(self.pace.max_messages, 500)

    def test_one_that_does_not_gets_half_of_it_but_not_nothing(self) -> None:
        self.assertTrue(self.pace.too_large(700_000, "request body too large"))
        self.assertEqual(self.pace.max_bytes, 350_000)
        for _ in range(20):
            self.pace.too_large(self.pace.max_bytes, "request body too large")
        self.assertFalse(self.pace.too_large(self.pace.max_bytes, "request body too large"))
        self.assertEqual(self.pace.max_bytes, 1_500)

    def test_sizes_recover_slowly(self) -> None:
        self.pace.too_large(700_000, TOO_LARGE)
        self.confirm(10)
        self.assertLess(self.pace.max_bytes, 40_000)
        self.confirm(300)
        self.assertEqual(self.pace.max_bytes, self.settings.max_transaction_bytes)

    def test_too_many_messages_are_halved(self) -> None:
        self.pace.too_many(200)
        self.assertEqual((self.pace.max_messages, self.pace.max_bytes), (100, self.settings.max_transaction_bytes))
        self.pace.too_many(1)
        self.assertEqual(self.pace.max_messages, 1)
        self.confirm(100)
        self.assertEqual(self.pace.max_messages, 500)

    def test_with_each_confirmation_there_are_a_fiftieth_more_bytes_and_a_quarter_more_messages(self) -> None:
        self.pace.too_large(65_691, TOO_LARGE)
        self.pace.too_many(200)
        self.confirm(1)
        self.assertEqual((self.pace.max_bytes, self.pace.max_messages), (30_601, 126))

    def test_odd_numbers_are_halved_to_whole_ones(self) -> None:
        self.pace.too_many(5)
        self.pace.too_large(9_999, "request body too large")
        self.assertEqual((repr(self.pace.max_messages), repr(self.pace.max_bytes)), ("2", "4999"))

    def test_the_size_that_a_refusal_names(self) -> None:
        self.assertEqual([max_size(text) for text in (TOO_LARGE, FULL, "no")], [30_000, 60_000, None])
