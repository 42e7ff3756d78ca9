"""Checks of the database and its disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

_HANGING_SECONDS = 10.0
_SLOW_SECONDS = 1.0

_STATES: Final[Mapping[str, tuple[ProblemId, str]]] = {
    "full": (
        ProblemId.DATABASE_FULL,
        "make room on that disk, raise the quota, or lower storage.keep_finished; until then dapi refuses new batches",
    ),
    "locked": (ProblemId.DATABASE_LOCKED, "end the other program that has this file open"),
    "broken": (ProblemId.DATABASE_BROKEN, "look at the disk and the system's log, then let dapi start anew"),
}


def database(status: Status) -> Iterator[Finding]:
    """Find a full disk, a file that another program has, or a database that broke."""
    found = status["database"]
    if found["state"] in _STATES:
        problem_id, to_do = _STATES[found["state"]]
        problem = f"the database is {found['state']}: {found['reason']}"
        yield Finding(problem_id, problem, to_do, since=found["since"], is_logged=True)


def hanging_disk(status: Status) -> Iterator[Finding]:
    """Find a write that does not end."""
    found = status["database"]
    if found["writing_seconds"] > _HANGING_SECONDS:
        problem = f"the disk hangs: a write has been running for {found['writing_seconds']:.0f} s"
        yield Finding(ProblemId.DISK_HANGS, problem, f"look at the disk of {found['path']}")


def slow_disk(status: Status) -> Iterator[Finding]:
    """Find a disk that takes long for each commit: a node waits 3 s for its ack, and then sends again by HTTP."""
    found = status["database"]
    seconds = found["commit_p99_seconds"]
    if seconds is not None and seconds > _SLOW_SECONDS:
        problem = f"the disk is slow: 1 of 100 commits takes {seconds:.1f} s or more"
        to_do = f"see what else writes to the disk of {found['path']}, or put the database on a faster one"
        yield Finding(ProblemId.DISK_SLOW, problem, to_do)


def quotas(status: Status) -> Iterator[Finding]:
    """Find nodes of which so much waits for the chain that no more is taken."""
    for node_id, messages in status["outbox"]["node_quota"]["full"].items():
        problem = f"{node_id}: {messages} messages of it wait for the chain, and no more are taken"
        to_do = (
            "see why nothing is sent, and whether the node sends what it should; else raise storage.max_node_messages"
        )
        yield Finding(ProblemId.NODE_QUOTA_FULL, problem, to_do, node_id)
