"""Checks of what is watched of PoC v2 from beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

_QUESTION_SECONDS = 10.0
_LOOK_AT_COMMITS = "look at the api container's log, and at the fee grant of the cold account for the warm key"

_TROUBLES: Final = {
    "silent": (ProblemId.WATCH_SILENT, "look whether the nodes reach the callback URL, and at the logs of their vLLMs"),
    "not_committed": (ProblemId.WATCH_NOT_COMMITTED, _LOOK_AT_COMMITS),
    "nothing_committed": (ProblemId.WATCH_NOT_COMMITTED, _LOOK_AT_COMMITS),
    "tail": (ProblemId.WATCH_TAIL, "nothing can be done for this stage; the relay brings what is late there sooner"),
    "weights": (ProblemId.WATCH_WEIGHTS, "look at the api container's log: without it the commit counts nothing"),
    "restarted": (ProblemId.WATCH_RESTARTED, "look why the api container ended"),
}


def watch(status: Status) -> Iterator[Finding]:
    """Find what is wrong with the stage that is under way, or was last."""
    found = status.get("poc_v2_watch")
    if found is None:
        return
    for trouble in found["troubles"]:
        problem_id, to_do = _TROUBLES[trouble["kind"]]
        yield Finding(problem_id, trouble["problem"], to_do, part=f"{problem_id.part} {trouble['model']}")
    for kind, text in found["questions"].items():
        where = "poc_v2.chain_url" if kind == "chain" else "poc_v2.api_url, api_public_url and api_admin_url"
        to_do = f"look whether it runs, and {where} are right"
        yield Finding(ProblemId.WATCH_CANNOT_ASK, text, to_do, part=f"watch {kind}", for_seconds=_QUESTION_SECONDS)
