"""Checks of the process."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

# A WebSocket and a call or a callback; the rest are the database, the ports and the chain.
_FILES_PER_NODE = 2
_OTHER_FILES = 200
_MUCH = 0.9


def files(status: Status) -> Iterator[Finding]:
    """Find that the process may not open as many files as it needs, or has opened nearly all that it may."""
    process, nodes = status["process"], len(status["nodes"])
    allowed, opened = process["max_files"], process["open_files"]
    if allowed is None:
        return
    needed = nodes * _FILES_PER_NODE + _OTHER_FILES
    if opened is not None and opened > _MUCH * allowed:
        problem = f"{opened} files are open, and {allowed} are allowed"
    elif needed > allowed:
        problem = f"{nodes} nodes may need {needed} open files, and {allowed} are allowed"
    else:
        return
    yield Finding(ProblemId.FILES_SHORT, problem, "raise the limit (ulimit -n, LimitNOFILE=, ulimits:)")
