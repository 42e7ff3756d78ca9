"""A problem as everybody shows it, and a finding, which a check makes and the book turns into a problem."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from dapi.diagnosis.catalogue import ProblemId, Severity

Status: TypeAlias = Mapping[str, Any]
"""What ``GET /admin/v1/status`` shows, as JSON data."""


def serves_poc_v2(status: Status) -> bool:
    """Return whether dapi relays or watches PoC v2, where it commands no node and sends nothing itself."""
    return status.get("relay") is not None or status.get("poc_v2_watch") is not None


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong now: the ``problem`` in one sentence, and what ``to_do`` about it in another.

    ``part`` is what it is about: a part of dapi, or something outside of it like a chain node. ``node_id`` is the ML
    node that has it, if it is one's. No two problems of one list have the same ``id``, ``node_id`` and ``part``.
    ``since`` is a time in UTC. ``chapter`` is the heading in docs/problems.md that tells more, and its anchor.
    """

    id: ProblemId
    severity: Severity
    node_id: str | None
    part: str
    since: datetime
    problem: str
    to_do: str
    chapter: str


class Finding(msgspec.Struct, frozen=True):
    """What a check has found; the book knows since when.

    ``part`` and ``severity`` are those of the catalogue unless they are given. It counts once it has lasted
    ``for_seconds``. ``since`` is when it began, in seconds since the epoch, where the part knows. ``is_logged`` says
    that the part itself logs it, when it begins and when it is over.
    """

    id: ProblemId
    problem: str
    to_do: str
    node_id: str | None = None
    part: str | None = None
    severity: Severity | None = None
    for_seconds: float = 0.0
    since: float | None = None
    is_logged: bool = False

    @property
    def key(self) -> tuple[ProblemId, str | None, str]:
        """What is the same as long as it is the same problem, whatever the words say."""
        return self.id, self.node_id, self.part or self.id.part
