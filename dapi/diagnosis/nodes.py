"""Checks of the ML nodes: whether they are reached, and do what they are to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding, Status

# A node answers nothing for 3 to 6 s while it switches.
_AWAY_SECONDS = 10.0
# A node that is found elsewhere gets its command again, and is asked after 5 s whether that helped.
_ELSEWHERE_SECONDS = 15.0
_SILENT_SECONDS = 60.0
# What a node says that does nothing.
_IDLE = ("STOPPED", "IDLE", "NOT_LOADED")
_IN_POC = ("GENERATE", "VALIDATE")
_POC_COMMANDS = ("StartPocCommand", "InitValidateCommand")
_OTHERS = "see that nothing else than this dapi commands the node"


def registration(status: Status) -> Iterator[Finding]:
    """Find nodes that are registered and cannot be used."""
    problem = status["broker"]["problem"]
    if problem is not None:
        to_do = "register these nodes again (POST /admin/v1/nodes)"
        yield Finding(ProblemId.NODES_NOT_LOADED, problem, to_do, is_logged=True)


_FAILURES: Final[Mapping[str, tuple[ProblemId, str]]] = {
    "unreachable": (
        ProblemId.NODE_DOWN,
        "look whether the node runs and can be reached from here at {poc_url}; dapi tries again by itself",
    ),
    "refused": (
        ProblemId.NODE_REFUSING,
        "look into the node's own log, and at the proxy before it ({poc_url}), whose 404 may come of a wrong version "
        "or poc_port; dapi tries again by itself",
    ),
    "defect": (ProblemId.NODE_COMMAND_BROKE, "look into the log, and report it; dapi tries again by itself"),
}


def failures(status: Status) -> Iterator[Finding]:
    """Find nodes that are not reached, or that refuse a command or a question."""
    standings = standings_of(status)
    for node in status["nodes"]:
        standing = standings.get(node["node_id"])
        failure, problem = _failure(node, standing)
        if node["enabled"] and failure in _FAILURES:
            problem_id, to_do = _FAILURES[failure]
            yield Finding(
                problem_id,
                _named(node["node_id"], problem),
                to_do.format(poc_url=node["poc_url"]),
                node["node_id"],
                severity=_severity(node, standing),
                for_seconds=_AWAY_SECONDS,
                is_logged=True,
            )


def _failure(node: Status, standing: Status | None) -> tuple[str, str]:
    """Return of which kind the node's failure is, and the words; both empty while nothing fails."""
    if standing is not None:
        return standing["failure"] or "", standing["problem"] or ""
    last = node["last"]
    if last is None or node["command"] is not None:
        return "", ""
    return last["result"]["failure"] or "", last["result"]["error"] or ""


def _severity(node: Status, standing: Status | None) -> Severity:
    """Tell whether batches are lost while the node fails: only in PoC."""
    if standing is not None:
        is_in_poc = standing["intended"] in _IN_POC
    else:
        is_in_poc = node["last"] is not None and node["last"]["command"] in _POC_COMMANDS
    return Severity.CRITICAL if is_in_poc else Severity.WARNING


def elsewhere(status: Status) -> Iterator[Finding]:
    """Find nodes that were told what to do, and do nothing, or something else."""
    standings = standings_of(status)
    for node in status["nodes"]:
        node_id, standing = node["node_id"], standings.get(node["node_id"])
        if standing is None or standing["found"] is None or not node["enabled"]:
            continue
        is_idle = standing["found"] in _IDLE
        problem = f"{node_id}: found {standing['found']}, where it is to {standing['intended']}"
        yield Finding(
            ProblemId.NODE_IDLE if is_idle else ProblemId.NODE_ELSEWHERE,
            problem,
            "look into the node's own log: it takes the command, and does not go on with it" if is_idle else _OTHERS,
            node_id,
            severity=_severity(node, standing),
            for_seconds=_ELSEWHERE_SECONDS,
            is_logged=True,
        )


def silence(status: Status) -> Iterator[Finding]:
    """Find nodes that are to generate, and have sent no batch for a minute."""
    for node_id, standing in standings_of(status).items():
        seconds = standing["silent_seconds"]
        if seconds is not None and seconds >= _SILENT_SECONDS:
            because = f" ({standing['problem']})" if standing["problem"] is not None else ""
            problem = f"{node_id}: is to generate, and no batch came from it for {seconds:.0f} s{because}"
            to_do = f"look into the node's own log, and whether it reaches {status['callbacks']['url']}"
            yield Finding(ProblemId.NODE_WITHOUT_BATCHES, problem, to_do, node_id)


def other_runs(status: Status) -> Iterator[Finding]:
    """Find nodes that compute for another stage, or for another participant."""
    for node_id, standing in standings_of(status).items():
        if standing["other_run"] == "stage":
            problem = f"{node_id}: its batches have not the block hash of the stage that is under way"
            yield Finding(ProblemId.NODE_OF_OTHER_STAGE, problem, _OTHERS, node_id)
        elif standing["other_run"] == "owner":
            problem = f"{node_id}: its batches have another participant's public key"
            yield Finding(ProblemId.NODE_OF_OTHER_OWNER, problem, _OTHERS, node_id)


def other_numbers(status: Status) -> Iterator[Finding]:
    """Find nodes whose batches carry another node's number: two nodes may compute the same nonces."""
    for node in status["nodes"]:
        if node["other_num"] is not None:
            problem = (
                f"{node['node_id']}: batches say node number {node['other_num']}, on number {node['node_num']}'s "
                "connection: taken for its own"
            )
            yield Finding(ProblemId.NODE_NUMBER_DIFFERS, problem, _OTHERS, node["node_id"], is_logged=True)


def standings_of(status: Status) -> Mapping[str, Status]:
    """Return where each node stands, by node id; empty where dapi does not drive the nodes."""
    standings: Mapping[str, Status] = (status["chain"].get("poc") or {}).get("nodes") or {}
    return standings


def _named(node_id: str, problem: str) -> str:
    return problem if problem.startswith(f"{node_id}: ") else f"{node_id}: {problem}"
