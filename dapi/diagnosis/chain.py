"""Checks of the chain, its nodes, and what is sent to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status

_CLOCK_SECONDS = 5.0
_CHAIN_NODE_SECONDS = 10.0

_REASONS: Final = (
    (
        "halted",
        ProblemId.CHAIN_HALTED,
        "wait if the whole network stands still; else look at the chain node, and set a second one",
    ),
    (
        "not reachable",
        ProblemId.CHAIN_UNREACHABLE,
        "look whether the chain nodes of chain_node.url run and can be reached from here",
    ),
    (
        "not asked yet",
        ProblemId.CHAIN_UNREACHABLE,
        "look whether the chain nodes of chain_node.url run and can be reached from here",
    ),
    (
        "catching up",
        ProblemId.CHAIN_CATCHING_UP,
        "wait until the chain node has caught up, or set one that has (chain_node.url)",
    ),
    (
        "another one",
        ProblemId.CHAIN_OTHER,
        "set chain nodes of the right network (chain_node.url); if the network began anew, dapi begins afresh with it"
        " once all of them have told so for a minute",
    ),
    (
        "the network has moved",
        ProblemId.CHAIN_MOVED_TO_V2,
        "leave the proof of compute to the network's own api container, and set poc.follow_chain: false",
    ),
)


def chain(status: Status) -> Iterator[Finding]:
    """Find that there is no chain, or that it takes nothing now."""
    found = status["chain"]
    if found["state"] == "not configured":
        to_do = "set chain_node.url, and the key that signs"
        yield Finding(ProblemId.CHAIN_NOT_CONFIGURED, found["reason"], to_do, is_logged=True)
        return
    reason, held = found["reason"], found.get("held") or {}
    if reason is not None and not held:
        unknown = ("", ProblemId.SENDING_STOPPED, "look into the log")
        _, problem_id, to_do = next((each for each in _REASONS if reason.startswith(each[0])), unknown)
        is_starting = reason == "not asked yet"
        for_seconds = _CHAIN_NODE_SECONDS if is_starting else 0.0
        problem = f"nothing is sent: {reason}"
        yield Finding(problem_id, problem, to_do, for_seconds=for_seconds, is_logged=True)


def sending(status: Status) -> Iterator[Finding]:
    """Find that the chain refuses what is sent: a missing grant or a fee, for instance."""
    found = status["chain"]
    if found["state"] == "not configured":
        return
    reason, held = found["reason"], found.get("held") or {}
    for kind, problem in held.items():
        problem_id, to_do = _mend(problem, found, ProblemId.MESSAGES_HELD)
        text = f"{kind} messages are held: {problem}"
        yield Finding(problem_id, text, to_do, part=f"{kind} messages", is_logged=True)
    if found.get("grant_expires") is not None:
        to_do = "have the participant grant it again before that day"
        yield Finding(ProblemId.GRANT_EXPIRES, found["grant_expires"], to_do, is_logged=True)
    if found["problem"] is not None and not held and found["problem"] != reason:
        problem_id, to_do = _mend(found["problem"], found, ProblemId.SENDING_FAILS)
        yield Finding(problem_id, f"the chain did not take a transaction: {found['problem']}", to_do, is_logged=True)


def _mend(problem: str, chain_status: Status, else_id: ProblemId) -> tuple[ProblemId, str]:
    if "authz" in problem or "authorization not found" in problem:
        signer, participant = chain_status["signer"], chain_status["participant"]
        to_do = f"have {participant} grant {signer} the right to send these messages; dapi tries again by itself"
        return ProblemId.GRANT_MISSING, to_do
    return else_id, "dapi tries again by itself; if that does not help, the problem says what the chain misses"


def chain_nodes(status: Status) -> Iterator[Finding]:
    """Find chain nodes that fail, are behind, or are of another chain."""
    id_and_to_do = {
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
    for node in status["chain"].get("nodes", ()):
        name, standing = node["name"], node["standing"]
        if standing in id_and_to_do:
            problem_id, to_do = id_and_to_do[standing]
            problem = f"chain node {name} is {standing.replace('_', ' ')}: {node['last_problem']}"
            part = f"chain node {name}"
            yield Finding(problem_id, problem, to_do, part=part, for_seconds=_CHAIN_NODE_SECONDS, is_logged=True)


def clock(status: Status) -> Iterator[Finding]:
    """Find that the clock of the machine differs from the time of the blocks."""
    offset = status["chain"].get("clock_offset_seconds")
    if offset is not None and abs(offset) > _CLOCK_SECONDS:
        side = "ahead of" if offset > 0 else "behind"
        problem = f"this machine's clock is {abs(offset):g} s {side} the time of the blocks"
        yield Finding(ProblemId.CLOCK_OFF, problem, "have the clock set by NTP (chrony, systemd-timesyncd)")


_NUMBERS = re.compile(r"\d+(\.\d+)?")


def phases(status: Status) -> Iterator[Finding]:
    """Find that dapi does not drive the nodes, cannot follow the phases, or that something in a stage is urgent."""
    found = status["chain"]
    poc = found.get("poc")
    if poc is None:
        is_without_chain = found["state"] == "not configured"
        reason = "no chain is configured" if is_without_chain else "poc.follow_chain is false"
        problem = f"dapi does not drive the nodes: {reason}"
        to_do = "have something else give them their commands (POST /admin/v1/poc/…), or let dapi follow the chain"
        yield Finding(ProblemId.NOT_DRIVING, problem, to_do, is_logged=is_without_chain)
        return
    if poc["problem"] is not None and poc["problem"] != found["reason"]:
        problem = f"the phases are not followed now: {poc['problem']}"
        yield Finding(
            ProblemId.PHASES_NOT_FOLLOWED,
            problem,
            "dapi tries again by itself",
            for_seconds=_CHAIN_NODE_SECONDS,
            is_logged=True,
        )
    for text in poc["warnings"]:
        to_do = "look at the log of dapi"
        if "no batch came" in text:
            to_do = f"look at the node's own log, and whether it reaches {status['callbacks']['url']}"
        yield Finding(ProblemId.STAGE_URGENT, text, to_do, part=_NUMBERS.sub("#", text), is_logged=True)
