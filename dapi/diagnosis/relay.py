"""Checks of the relay of PoC v2 callbacks, and of the api container that it hands them on to."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding, Status

_AWAY_SECONDS = 3.0
_GRAVE_SECONDS = 30.0
_QUESTION_SECONDS = 10.0
_REFUSED_SECONDS = 10.0

_ANSWERS = {
    "MISROUTED": (
        ProblemId.RELAY_MISROUTED,
        "look whether poc_v2.api_url is the callback port of the api container itself, and no proxy stands before it; "
        "a path with // is of a DAPI_API__POC_CALLBACK_URL that ends with a slash",
    ),
    "UNKNOWN_NODE": (
        ProblemId.RELAY_UNKNOWN_NODE,
        "look at the api container's nodes: one that was removed and added again has a new number",
    ),
    "UNREADABLE": (ProblemId.RELAY_BROKE, "look at dapi's own disk; dapi tries again by itself until its window ends"),
    "AGAIN": (ProblemId.RELAY_REFUSED, "look at the api container's log and its disk"),
}
_QUESTIONS = {
    "epochs": "poc_v2.api_public_url",
    "state": "poc_v2.api_public_url",
    "nodes": "poc_v2.api_admin_url",
    "metrics": "poc_v2.api_url",
}


def relay(status: Status) -> Iterator[Finding]:
    """Find what keeps callbacks from being handed on, or from being counted."""
    found = status.get("relay")
    if found is None:
        return
    yield from _way(found)
    for node_id, seconds in found["silent_nodes"].items():
        problem = f"{node_id}: it says that it generates, and has delivered nothing here for {seconds:.0f} s"
        to_do = (
            "look whether the node reaches the URL that the api container was told (docs/poc-v2.md), and at the log of "
            "its vLLM; a node that got another URL with its init keeps it until the next one"
        )
        yield Finding(ProblemId.RELAY_NODE_SILENT, problem, to_do, node_id)
    problems = found["problems"]
    for text in problems["fallen"]:
        to_do = "look at the disk of the api container: its file of artifacts was damaged; dapi sends the stage again"
        yield Finding(ProblemId.RELAY_FALLEN, text, to_do, is_logged=True)
    for text in problems["stalled"]:
        to_do = "look whether the api container can write to its disk; dapi sends them again until they are counted"
        yield Finding(ProblemId.RELAY_NOT_COUNTED, text, to_do, is_logged=True)
    for kind, text in problems["answers"].items():
        problem_id, to_do = _ANSWERS[kind]
        yield Finding(problem_id, text, to_do, for_seconds=_REFUSED_SECONDS if kind == "AGAIN" else 0.0, is_logged=True)
    for kind, text in problems["questions"].items():
        to_do = f"look whether {_QUESTIONS[kind]} is right; without it dapi cannot tell what is counted"
        yield Finding(ProblemId.RELAY_CANNOT_ASK, text, to_do, part=f"relay {kind}", for_seconds=_QUESTION_SECONDS)
    if problems["unloaded"] is not None:
        text = f"what was kept before the start is not handed on: {problems['unloaded']}"
        to_do = "look at dapi's own disk, and at its log; after a fault of the disk dapi tries again by itself"
        yield Finding(ProblemId.RELAY_BROKE, text, to_do, is_logged=True)
    for text in problems["loops"]:
        yield Finding(ProblemId.RELAY_BROKE, text, "report it with the log of dapi", is_logged=True)


def _way(found: Status) -> Iterator[Finding]:
    if (away := found["away"]) is not None:
        problem = f"the api container is away: {away['reason']}; {found['waiting']} callbacks wait on disk"
        severity = Severity.CRITICAL if away["seconds"] >= _GRAVE_SECONDS else Severity.WARNING
        to_do = "start the api container; what waits is handed on in the second in which it is back"
        yield Finding(
            ProblemId.RELAY_AWAY, problem, to_do, severity=severity, for_seconds=_AWAY_SECONDS, is_logged=True
        )
    if found["passing"] is not None:
        to_do = "make room on dapi's disk; until then a callback is as safe as without dapi"
        problem = f"callbacks are handed on without being kept: {found['passing']}"
        yield Finding(ProblemId.RELAY_PASSING, problem, to_do, is_logged=True)
    if found["held_count"]:
        reasons = sorted({each["reason"] for each in found["held"]})
        problem = f"{found['held_count']} callbacks are held and not handed on: {'; '.join(reasons)}"
        to_do = (
            "find out who sends them: no node of this host should; a changed prefix (docs/poc-v2.md) locks others out. "
            "A PoC challenge is known once poc_v2.chain_url and poc_v2.participant are set"
        )
        yield Finding(ProblemId.RELAY_HELD, problem, to_do, is_logged=True)
    if found["set_aside"]:
        last = found["set_aside"][-1]
        count = found["counts"].get("set_aside", len(found["set_aside"]))
        problem = f"{count} callbacks were refused for good by the api container, the last one with: {last['reason']}"
        to_do = "compare the versions of the api container and of the ML nodes"
        yield Finding(ProblemId.RELAY_SET_ASIDE, problem, to_do, is_logged=True)
