"""Who is called whenever something happens."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.observers import Observers


class ObserversTests(SynchronousTestCase):
    def test_each_is_called_in_order(self) -> None:
        observers: Observers[[int]] = Observers()
        heard: list[tuple[str, int]] = []
        observers.add(lambda number: heard.append(("a", number)))
        observers.add(lambda number: heard.append(("b", number)))
        observers(5)
        self.assertEqual(heard, [("a", 5), ("b", 5)])

    def test_one_that_raises_is_logged_and_the_others_hear_of_it(self) -> None:
        observers: Observers[[]] = Observers()
        heard: list[str] = []

        def broken() -> None:
            raise ValueError("x")

        observers.add(broken)
        observers.add(lambda: heard.append("b"))
        observers()
        self.assertEqual(heard, ["b"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
