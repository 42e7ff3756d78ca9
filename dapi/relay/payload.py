"""One callback on its way to the api container.

What becomes of it::

             released: its stage or its model is known now
       ┌────────────────────────────────────┐
       │                                    ▼   answered 200          counted on disk
     HELD ◀──what must not be handed on── WAITING ─────────────▶ TAKEN ──────────────▶ SETTLED
                                          │  │ ▲                  │                      │
               never: 400, 413, 415, 422  │  │ └──lost by the ────┴──count fell: again───┘
                               ┌──────────┘  │    container: again
                               ▼             ▼
                           SET_ASIDE       LATE: its window has ended

WAITING, TAKEN and HELD are the same on disk: after a restart of dapi each is looked at anew, and handed on again. That
does no harm, for the container keeps a nonce once. HELD leads to LATE, too. A result of a validation is SETTLED with
its 200.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

import attrs

from dapi.relay.facts import Facts, Target
from dapi.timing.steps import step


class Place(NamedTuple):
    """Where a body is on disk: in the file of this name, from this byte on."""

    name: str
    offset: int


class PayloadState(enum.StrEnum):
    """Where a payload is on its way."""

    WAITING = "waiting"
    HELD = "held"
    TAKEN = "taken"
    SETTLED = "settled"
    SET_ASIDE = "set_aside"
    LATE = "late"


_S = PayloadState
TRANSITIONS: Final[Mapping[PayloadState, frozenset[PayloadState]]] = {
    _S.WAITING: frozenset({_S.TAKEN, _S.HELD, _S.SETTLED, _S.SET_ASIDE, _S.LATE}),
    _S.HELD: frozenset({_S.WAITING, _S.LATE}),
    _S.TAKEN: frozenset({_S.SETTLED, _S.WAITING, _S.LATE}),
    _S.SETTLED: frozenset({_S.WAITING}),
    _S.SET_ASIDE: frozenset(),
    _S.LATE: frozenset(),
}
FINISHED: Final = frozenset({_S.SETTLED, _S.SET_ASIDE, _S.LATE})


Key: TypeAlias = tuple[int, str]
Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


def key_of(said: Target, facts: Facts) -> Key | None:
    """Return the stage and the model that a callback counts for, None where the container counts nothing known."""
    if said.kind != "generated" or said.model is None or facts.height is None:
        return None
    return facts.height, said.model


@attrs.define(eq=False)
class Payload:
    """A callback that is on disk; ``place`` says where its body is.

    ``target`` is the request target without dapi's own prefix. ``received_at`` is in unix seconds; ``taken_at`` (the
    first 200 since it was last taken for lost) and ``retry_at`` are on the reactor's clock. ``failures`` counts
    the answers 500 to a result. ``rank`` counts the payloads that were taken: the store flushes in that order.
    """

    seq: int
    place: Place
    target: bytes
    headers: Headers
    size: int
    received_at: float
    said: Target
    facts: Facts
    state: PayloadState = PayloadState.WAITING
    reason: str | None = None
    retry_at: float = 0.0
    tries: int = 0
    failures: int = 0
    taken_at: float = 0.0
    rank: int = 0
    has_body: bool = True

    @property
    def lane(self) -> tuple[str | None, int | None]:
        """Payloads of one model and node are handed on a few at a time."""
        return self.said.model, self.facts.node_num

    @property
    def key(self) -> Key | None:
        """The stage and the model that it counts for; see ``key_of``."""
        return key_of(self.said, self.facts)

    def turn(self, state: PayloadState, reason: str | None = None) -> None:
        """Go to another state; raises RuntimeError when the drawing has no such way."""
        self.state, self.reason = step(TRANSITIONS, self.state, state, "a payload"), reason
