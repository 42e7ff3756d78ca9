"""The transactions that are in flight: their number, their bytes, their kinds."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.submission.in_flight import InFlight
from dapi.submission.rows import Message, TransactionInFlight


def transaction(tx_hash: str, size: int = 100, kind: Kind = Kind.GENERATED) -> TransactionInFlight:
    return TransactionInFlight(tx_hash, 7, [Message(1, kind, 10, 1)], size=size)


class InFlightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.removed = 0
        self.in_flight = InFlight(self.hear)
        self.assertEqual((len(self.in_flight), self.in_flight.size), (0, 0))

    def hear(self) -> None:
        self.removed += 1

    def test_added_and_removed(self) -> None:
        first, second = transaction("A", 100), transaction("B", 30)
        for each in (first, second):
            self.in_flight.add(each)
        self.assertEqual((self.in_flight.all(), self.in_flight.size), ([first, second], 130))
        self.in_flight.remove(first)
        self.assertEqual((self.in_flight.all(), self.in_flight.size, self.removed), ([second], 30, 1))
        self.assertTrue(second in self.in_flight)
        self.assertFalse(first in self.in_flight)

    def test_begun_anew_with_what_the_database_says(self) -> None:
        self.in_flight.add(transaction("A"))
        self.in_flight.replace([transaction("B", 30), transaction("C", 20)])
        self.assertEqual(([each.hash for each in self.in_flight.all()], self.in_flight.size), (["B", "C"], 50))
        self.in_flight.replace([])
        self.assertEqual((len(self.in_flight), self.in_flight.size, self.removed), (0, 0, 0))

    def test_which_kinds_are_among_them(self) -> None:
        self.in_flight.add(transaction("A"))
        self.in_flight.add(transaction("B", kind=Kind.SEED))
        kinds = {kind for kind in Kind if self.in_flight.has_kind(kind)}
        self.assertEqual(kinds, {Kind.GENERATED, Kind.SEED})

    def test_how_many_a_mempool_has_taken(self) -> None:
        for number in range(5):
            each = transaction(str(number))
            each.is_taken = number < 3
            self.in_flight.add(each)
        self.assertEqual(self.in_flight.known, 3)
