"""A step of a state machine: one that its drawing has, or none."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import TypeVar

S = TypeVar("S", bound=enum.Enum)


def step(table: Mapping[S, Collection[S]], before: S, after: S, who: str = "it") -> S:
    """Return the state ``after``; raise RuntimeError, which names ``who``, when the table does not lead there.

    The table has the states that each state leads to.
    """
    if after not in table[before]:
        raise RuntimeError(f"{who}: {before.name} does not lead to {after.name}")
    return after
