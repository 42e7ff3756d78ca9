"""Checks of the chain and its nodes: whether there is one that takes what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status, serves_poc_v2

_CLOCK_SECONDS = 5.0
# Restarts, and changes from one node to the next, are over by then.
_LASTING_SECONDS = 10.0

_LOOK = "look whether the chain nodes of chain_node.url run, are RPC ports (26657), and can be reached from here"
_TROUBLES: Final[Mapping[str, tuple[ProblemId, str]]] = {
    "not_asked": (ProblemId.CHAIN_UNREACHABLE, _LOOK),
    "unreachable": (ProblemId.CHAIN_UNREACHABLE, _LOOK),
    "catching_up": (
        ProblemId.CHAIN_CATCHING_UP,
        "wait until the chain node has caught up, or set one that has (chain_node.url)",
    ),
    "other_chain": (
        ProblemId.CHAIN_OTHER,
        "stop dapi, and set chain nodes of the right network (chain_node.url); if the network began anew, wait: dapi"
        " begins afresh with it once all of them have told so for a minute",
    ),
    "halted": (
        ProblemId.CHAIN_HALTED,
        "wait if the whole network stands still; else look at the chain node, and set a second one (chain_node.url)",
    ),
    "moved": (
        ProblemId.CHAIN_MOVED_TO_V2,
        "run the network's own api container for the proof of compute, and have dapi relay its callbacks: poc_v2.relay,"
        " docs/poc-v2.md",
    ),
    "turn": (ProblemId.SENDING_STOPPED, "see what the problem says; dapi tries again every few seconds"),
    "broken": (ProblemId.SENDING_STOPPED, "look into the log, and report it; dapi tries again by itself"),
}


def chain(status: Status) -> Iterator[Finding]:
    """Find that there is no chain, or that nothing is sent to it now.

    On a host of PoC v2 the api container sends: there, neither is wrong.
    """
    found = status["chain"]
    if serves_poc_v2(status) and (found["state"] == "not configured" or found["trouble"] == "moved"):
        return
    if found["state"] == "not configured":
        to_do = "set chain_node.url, and the key that signs (chain_node.signer_key_name)"
        yield Finding(ProblemId.CHAIN_NOT_CONFIGURED, found["reason"], to_do, is_logged=True)
    elif found["trouble"] in _TROUBLES:
        problem_id, to_do = _TROUBLES[found["trouble"]]
        may_pass = found["trouble"] in ("not_asked", "turn")
        for_seconds = _LASTING_SECONDS if may_pass else 0.0
        problem = f"nothing is sent: {found['reason']}"
        yield Finding(problem_id, problem, to_do, for_seconds=for_seconds, is_logged=True)


_STANDINGS: Final[Mapping[str, tuple[ProblemId, str]]] = {
    "failing": (
        ProblemId.CHAIN_NODE_FAILING,
        "look whether it runs; dapi uses the others meanwhile, if there are any",
    ),
    "behind": (
        ProblemId.CHAIN_NODE_BEHIND,
        "look why it is behind; dapi uses the others meanwhile, if there are any",
    ),
    "other_chain": (ProblemId.CHAIN_NODE_OTHER, "take it out of chain_node.url: it is never used"),
}


def chain_nodes(status: Status) -> Iterator[Finding]:
    """Find chain nodes that fail, are behind, or are of another chain."""
    for node in status["chain"].get("nodes", ()):
        name, standing = node["name"], node["standing"]
        if standing in _STANDINGS:
            problem_id, to_do = _STANDINGS[standing]
            problem = f"chain node {name} is {standing.replace('_', ' ')}: {node['last_problem']}"
            part = f"chain node {name}"
            yield Finding(problem_id, problem, to_do, part=part, for_seconds=_LASTING_SECONDS, is_logged=True)


def clock(status: Status) -> Iterator[Finding]:
    """Find that the clock of the machine differs from the time of the blocks."""
    yield from clock_off(status["chain"].get("clock_offset_seconds"))


def clock_off(offset: float | None) -> Iterator[Finding]:
    """Find that the clock is so many seconds ahead of the time of the blocks, or behind; None: not known."""
    if offset is not None and abs(offset) > _CLOCK_SECONDS:
        side = "ahead of" if offset > 0 else "behind"
        problem = f"this machine's clock is {abs(offset):g} s {side} the time of the blocks"
        yield Finding(ProblemId.CLOCK_OFF, problem, "have the clock set by NTP (chrony, systemd-timesyncd)")
