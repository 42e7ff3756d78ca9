"""Checks of the ML nodes: whether they are reached, do what they are to do, and keep their WebSocket."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

_WEBSOCKET_SECONDS = 30.0


def registration(status: Status) -> Iterator[Finding]:
    """Find nodes that are registered and cannot be used."""
    problem = status["broker"]["problem"]
    if problem is not None:
        to_do = "register these nodes again (POST /admin/v1/nodes)"
        yield Finding(ProblemId.NODES_NOT_LOADED, problem, to_do, is_logged=True)


def failures(status: Status) -> Iterator[Finding]:
    """Find nodes that are not reached, or that refuse a command or a question."""
    standings = (status["chain"].get("poc") or {}).get("nodes", {})
    for node in status["nodes"]:
        if node["enabled"]:
            yield from _failure(node, standings.get(node["node_id"]))


def _failure(node: Status, standing: Status | None) -> Iterator[Finding]:
    node_id, last = node["node_id"], node["last"]
    failed = last is not None and not last["result"]["succeeded"] and node["command"] is None
    problem = standing["problem"] if standing is not None else last["result"]["error"] if failed else None
    if problem is not None:
        to_do = f"look whether the node runs, and answers at {node['poc_url']}; dapi tries again by itself"
        yield Finding(ProblemId.NODE_FAILS, _named(node_id, problem), to_do, node_id, is_logged=True)


def websockets(status: Status) -> Iterator[Finding]:
    """Find nodes that do not take their WebSocket."""
    for node in status["nodes"]:
        websocket, node_id = node["websocket"], node["node_id"]
        is_away = websocket["state"] in ("refused", "waiting") and websocket["reason"] is not None
        if node["enabled"] and is_away:
            to_do = "its batches come by HTTP meanwhile; look at the node, and at the proxy before it"
            problem = f"{node_id}: no WebSocket: {websocket['reason']}"
            yield Finding(
                ProblemId.WEBSOCKET_REFUSED,
                problem,
                to_do,
                node_id,
                for_seconds=_WEBSOCKET_SECONDS,
                is_logged=True,
            )


def _named(node_id: str, problem: str) -> str:
    return problem if problem.startswith(f"{node_id}: ") else f"{node_id}: {problem}"
