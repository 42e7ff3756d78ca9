"""Remembers since when each finding is there, and makes problems of those that have lasted long enough."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Problem

_Key: TypeAlias = tuple[ProblemId, str | None, str]


class Changes(NamedTuple):
    """What an update brought: all ``problems`` that there are, the gravest first, and those that are ``over`` now.

    ``counting`` are the findings that the problems are made of, and ``over`` has findings, too: they say whether the
    part has logged them.
    """

    problems: list[Problem]
    counting: list[Finding]
    over: list[Finding]


class ProblemBook:
    """One list of problems, from look to look."""

    def __init__(self) -> None:
        self._began: dict[_Key, tuple[float, float]] = {}
        self._counting: dict[_Key, Finding] = {}

    def update(self, found: Iterable[Finding], seconds: float, now: float) -> Changes:
        """Take over what the checks have found.

        ``seconds`` is a time that never jumps, ``now`` the time of day in seconds since the epoch.
        """
        by_key = {finding.key: finding for finding in found}
        self._began = {key: self._began.get(key, (seconds, now)) for key in by_key}
        before = self._counting
        self._counting = {
            key: each for key, each in by_key.items() if seconds - self._began[key][0] >= each.for_seconds
        }
        problems = [self._problem(each) for each in self._counting.values()]
        problems.sort(key=lambda each: each.severity.rank)
        return Changes(
            problems,
            counting=list(self._counting.values()),
            over=[each for key, each in before.items() if key not in self._counting],
        )

    def _problem(self, finding: Finding) -> Problem:
        since = finding.since if finding.since is not None else self._began[finding.key][1]
        return Problem(
            id=finding.id,
            severity=finding.severity or finding.id.severity,
            node_id=finding.node_id,
            part=finding.part or finding.id.part,
            since=datetime.fromtimestamp(since, UTC).replace(microsecond=0),
            problem=finding.problem,
            to_do=finding.to_do,
            chapter=finding.id.chapter,
        )
