"""Checks of what is watched of PoC v2 from beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dapi.diagnosis.callbacks import HOST_FAULTS, fault_between
from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.chain import clock_off
from dapi.diagnosis.problem import Finding, Status
from dapi.messages.urls import parse_url

_QUESTION_SECONDS = 10.0
_LOOK_AT_COMMITS = "look at the api container's log, and at the fee grant of the cold account for the warm key"
_OF_CHAIN = ("chain", "clock", "challenge", "votes")

_TROUBLES: Final = {
    "silent": (ProblemId.WATCH_SILENT, "look whether the nodes reach the callback URL, and at the logs of their vLLMs"),
    "slower": (
        ProblemId.WATCH_SLOWER,
        "look at the logs of the nodes' vLLMs, which of them delivers nothing any more",
    ),
    "stopped": (ProblemId.WATCH_NODE_STOPPED, "look at the node, and at its vLLM's log"),
    "not_committed": (ProblemId.WATCH_NOT_COMMITTED, _LOOK_AT_COMMITS),
    "nothing_committed": (ProblemId.WATCH_NOT_COMMITTED, _LOOK_AT_COMMITS),
    "tail": (ProblemId.WATCH_TAIL, "nothing can be done for this stage; the relay brings what is late there sooner"),
    "weights": (ProblemId.WATCH_WEIGHTS, "look at the api container's log: without it the commit counts nothing"),
    "votes": (ProblemId.WATCH_VOTES, "look whether the nodes validate, and at the api container's log"),
    "restarted": (ProblemId.WATCH_RESTARTED, "look why the api container ended"),
}


def watch(status: Status) -> Iterator[Finding]:
    """Find what is wrong with the stages that are under way, or were last."""
    found = status.get("poc_v2_watch")
    if found is None:
        return
    for trouble in found["troubles"]:
        problem_id, to_do = _TROUBLES[trouble["kind"]]
        part = f"{problem_id.part} {trouble['height']} {trouble['model']}"
        yield Finding(problem_id, trouble["problem"], to_do, part=part)
    for kind, text in found["questions"].items():
        if kind == "state" and status.get("relay") is not None:
            # The relay asks for it, too, and more often.
            continue
        where = "poc_v2.chain_url" if kind in _OF_CHAIN else "poc_v2.api_url, api_public_url and api_admin_url"
        to_do = f"look whether it runs, and {where} are right"
        # In a stage a container that does not answer takes no artifacts either.
        severity = Severity.CRITICAL if kind == "epochs" and found["is_generating"] else Severity.WARNING
        part = f"watch {kind}"
        yield Finding(
            ProblemId.WATCH_CANNOT_ASK, text, to_do, part=part, severity=severity, for_seconds=_QUESTION_SECONDS
        )
    if status["chain"].get("clock_offset_seconds") is None:
        yield from clock_off(found["clock_offset_seconds"])
    yield from _callback_url(status, found)


def _callback_url(status: Status, found: Status) -> Iterator[Finding]:
    """Find nodes that cannot reach the URL that the api container was told, as far as the names tell."""
    if not status["callbacks"]["is_url_set"]:
        return
    host = parse_url(status["callbacks"]["url"]).host
    for node in found["nodes"]:
        fault = fault_between(host, node["host"])
        if fault is None:
            continue
        yield Finding(
            ProblemId.WATCH_CALLBACK_URL,
            f"{node['node_id']} is at {node['host']}, and the callback URL's {host} {HOST_FAULTS[fault]}",
            "tell the api container, and dapi, an address that the node reaches (DAPI_API__POC_CALLBACK_URL)",
            node["node_id"],
        )
