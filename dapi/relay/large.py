"""How many large bodies come at once: so many, and of one address no more than leaves room for the others."""

from __future__ import annotations

from dapi.http.answers import HttpError
from dapi.http.shares import Shares
from dapi.relay.bodies import SMALL_BYTES, Body

_MAX_LARGE_BODIES = 32


class LargeBodies:
    """Counts those that come, by address; small ones are none of its business."""

    def __init__(self) -> None:
        self._shares = Shares(_MAX_LARGE_BODIES)
        self._addresses: dict[Body, str] = {}

    def check(self, length: int, address: str) -> None:
        """Refuse a body that finds no room; raises HttpError."""
        if length > SMALL_BYTES and not self._shares.may_take(address):
            raise HttpError(503, f"too many bodies of more than {SMALL_BYTES} bytes at once, try again")

    def begin(self, body: Body, length: int, address: str) -> None:
        """Hear that a body comes."""
        if length > SMALL_BYTES:
            self._addresses[body] = address
            self._shares.take(address)

    def end(self, body: Body) -> None:
        """Hear that a body has come, or comes no more."""
        if (address := self._addresses.pop(body, None)) is not None:
            self._shares.give_back(address)
