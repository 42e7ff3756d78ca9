"""Checks of the database and its disk."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

_HANGING_DISK_SECONDS = 10.0


def database(status: Status) -> Iterator[Finding]:
    """Find a full disk, a file that another program has, or a database that broke."""
    found = status["database"]
    id_and_to_do = {
        "full": (
            ProblemId.DATABASE_FULL,
            "make room on that disk, or raise the quota; until then dapi refuses new batches",
        ),
        "locked": (ProblemId.DATABASE_LOCKED, f"end the other program that has {found['path']} open"),
        "broken": (
            ProblemId.DATABASE_BROKEN,
            "let dapi start anew, and look at the disk and at the system's log",
        ),
    }
    if found["state"] in id_and_to_do:
        problem_id, to_do = id_and_to_do[found["state"]]
        problem = f"the database is {found['state']}: {found['reason']}"
        yield Finding(problem_id, problem, to_do, since=found["since"], is_logged=True)


def hanging_disk(status: Status) -> Iterator[Finding]:
    """Find a write that does not end."""
    found = status["database"]
    if found["writing_seconds"] > _HANGING_DISK_SECONDS:
        problem = f"the disk hangs: a write has been running for {found['writing_seconds']:.0f} s"
        yield Finding(ProblemId.DISK_HANGS, problem, f"look at the disk of {found['path']}")
