"""The counts of each minute."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.server.page.minutes import MINUTES, ByWay, Minutes


class MinutesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counts: dict[str, ByWay] = {}
        self.asked = 0
        self.minutes = Minutes(self.ask)

    def ask(self) -> dict[str, ByWay]:
        self.asked += 1
        return self.counts

    def update(self, unix_seconds: float, counts: dict[str, ByWay]) -> None:
        self.counts = counts
        self.minutes.update(unix_seconds)

    def over(self) -> tuple[object, object]:
        data = self.minutes.data()
        return data["websocket"], data["http"]

    def test_what_came_in_each_minute(self) -> None:
        self.update(600, {"a": (5, 1)})
        self.update(630, {"a": (7, 1)})
        self.assertEqual(([], []), self.over())
        self.update(660, {"a": (8, 2)})
        self.update(725, {"a": (8, 2), "b": (3, 4)})
        self.assertEqual(([3, 3], [1, 4]), self.over())
        self.assertEqual(720, self.minutes.data()["until"])

    def test_a_node_that_is_replaced_begins_at_0(self) -> None:
        self.update(600, {"a": (50, 10)})
        self.update(660, {"a": (2, 1)})
        self.update(720, {})
        self.update(780, {"a": (2, 1)})
        self.assertEqual(([2, 0, 2], [1, 0, 1]), self.over())

    def test_only_six_hours_are_kept(self) -> None:
        for minute in range(MINUTES + 10):
            self.update(60 * minute, {"a": (minute, 0)})
        self.assertEqual([1] * MINUTES, self.over()[0])

    def test_nobody_is_asked_within_a_minute(self) -> None:
        for second in range(600, 660, 2):
            self.update(second, {"a": (second, 0)})
        self.assertEqual(1, self.asked)

    def test_before_the_first_minute(self) -> None:
        self.assertEqual({"until": None, "websocket": [], "http": []}, self.minutes.data())
