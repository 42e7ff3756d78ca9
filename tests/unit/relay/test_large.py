"""Large bodies that come slowly keep neither small ones out, nor those of other addresses."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.http.answers import HttpError
from dapi.messages.sizes import MIB
from dapi.relay.large import LargeBodies

LARGE = MIB + 1


class Body:
    """One that comes."""


class LargeBodiesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.large = LargeBodies()

    def fill(self, address: str) -> list[Any]:
        """Begin as many as an address may."""
        begun: list[Any] = []
        while True:
            try:
                self.large.check(LARGE, address)
            except HttpError as error:
                self.assertEqual(error.code, 503)
                return begun
            begun.append(Body())
            self.large.begin(begun[-1], LARGE, address)

    def test_an_address_leaves_room_for_the_others(self) -> None:
        self.assertEqual(len(self.fill("10.0.0.1")), 11)
        self.assertGreater(len(self.fill("10.0.0.2")), 3)
        self.assertGreater(len(self.fill("10.0.0.3")), 1)

    def test_small_ones_always_find_room(self) -> None:
        self.fill("10.0.0.1")
        self.large.check(MIB, "10.0.0.1")
        body: Any = Body()
        self.large.begin(body, MIB, "10.0.0.1")
        self.large.end(body)

    def test_each_that_has_ended_makes_room_once(self) -> None:
        begun = self.fill("10.0.0.1")
        for body in begun[:2]:
            self.large.end(body)
            self.large.end(body)
        self.assertEqual(len(self.fill("10.0.0.1")), 2)
