"""What is wrong, as pure functions from the parts' states, and a book that remembers since when.

Each check takes the status as ``GET /admin/v1/status`` shows it, JSON data, and yields what it finds. No finding means:
nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from dapi.messages.urls import is_loopback
from dapi.service.callback_reach import unreached_callbacks

_CLOCK_SECONDS = 5.0
_WEBSOCKET_SECONDS = 30.0
_CHAIN_NODE_SECONDS = 10.0
_HANGING_DISK_SECONDS = 10.0
# A node sends every 5 s: its first delivery is over then, and 10 s more are enough to know.
CALLBACK_SECONDS = 15.0

Status = Mapping[str, Any]
_NUMBERS = re.compile(r"\d+(\.\d+)?")


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: the ``problem`` in words, and what ``to_do`` about it.

    ``key`` is the same as long as it is the same problem. It counts once it has lasted ``for_seconds``. ``since`` is
    when it began, in seconds since the epoch, where the part knows. ``is_logged`` says that the part itself logs it.
    """

    key: str
    problem: str
    to_do: str
    for_seconds: float = 0.0
    since: float | None = None
    is_logged: bool = True


def database(status: Status) -> Iterator[Finding]:
    """Find a full disk, a file that another program has, or a database that broke."""
    found = status["database"]
    to_do = {
        "full": "make room on that disk, or raise the quota; until then dapi refuses new batches",
        "locked": f"end the other program that has {found['path']} open",
        "broken": "let dapi start anew, and look at the disk and at the system's log",
    }
    if found["state"] in to_do:
        problem = f"the database is {found['state']}: {found['reason']}"
        yield Finding(f"database {found['state']}", problem, to_do[found["state"]], since=found["since"])
    if found["writing_seconds"] > _HANGING_DISK_SECONDS:
        problem = f"the disk hangs: a write has been running for {found['writing_seconds']:.0f} s"
        yield Finding("disk", problem, f"look at the disk of {found['path']}", is_logged=False)


_CHAIN_TO_DO: Final = (
    ("halted", "wait if the whole network stands still; else look at the chain node, and set a second one"),
    ("not reachable", "look whether the chain nodes of chain_node.url run and can be reached from here"),
    ("not asked yet", "look whether the chain nodes of chain_node.url run and can be reached from here"),
    ("catching up", "wait until the chain node has caught up, or set one that has (chain_node.url)"),
    ("another one", "set chain nodes of the right network (chain_node.url)"),
    ("the network has moved", "install a dapi that knows the network's new version; everything is kept"),
)


def chain(status: Status) -> Iterator[Finding]:
    """Find that there is no chain, that it takes nothing now, or that it refuses what is sent (a missing grant, …)."""
    found = status["chain"]
    if found["state"] == "not configured":
        yield Finding("no chain", found["reason"], "set chain_node.url, and the key that signs")
        return
    reason, held = found["reason"], found.get("held") or {}
    if reason is not None and not held:
        begin, to_do = next((each for each in _CHAIN_TO_DO if reason.startswith(each[0])), ("", "look into the log"))
        is_starting = reason == "not asked yet"
        for_seconds = _CHAIN_NODE_SECONDS if is_starting else 0.0
        yield Finding(f"chain {begin or _kind(reason)}", f"nothing is sent: {reason}", to_do, for_seconds)
    for kind, problem in held.items():
        yield Finding(f"held {kind}", f"{kind} messages are held: {problem}", _mend(problem, found))
    if found.get("grant_expires") is not None:
        yield Finding("grant expires", found["grant_expires"], "have the participant grant it again before that day")
    if found["problem"] is not None and not held and found["problem"] != reason:
        yield Finding(
            "sending", f"the chain did not take a transaction: {found['problem']}", _mend(found["problem"], found)
        )


def _mend(problem: str, chain_status: Status) -> str:
    if "authz" in problem or "authorization not found" in problem:
        signer, participant = chain_status["signer"], chain_status["participant"]
        return f"have {participant} grant {signer} the right to send these messages; dapi tries again by itself"
    return "dapi tries again by itself; if that does not help, the problem says what the chain misses"


def chain_nodes(status: Status) -> Iterator[Finding]:
    """Find chain nodes that fail, are behind, or are of another chain."""
    to_do = {
        "failing": "look whether it runs; dapi uses the others meanwhile, if there are any",
        "behind": "look why it is behind; dapi uses the others meanwhile, if there are any",
        "other_chain": "take it out of chain_node.url: it is never used",
    }
    for node in status["chain"].get("nodes", ()):
        if node["standing"] in to_do:
            problem = f"chain node {node['name']} is {node['standing'].replace('_', ' ')}: {node['last_problem']}"
            key = f"chain node {node['name']} {node['standing']}"
            yield Finding(key, problem, to_do[node["standing"]], _CHAIN_NODE_SECONDS)


def clock(status: Status) -> Iterator[Finding]:
    """Find that the clock of the machine differs from the time of the blocks."""
    offset = status["chain"].get("clock_offset_seconds")
    if offset is not None and abs(offset) > _CLOCK_SECONDS:
        side = "ahead of" if offset > 0 else "behind"
        problem = f"this machine's clock is {abs(offset):g} s {side} the time of the blocks"
        yield Finding("clock", problem, "have the clock set by NTP (chrony, systemd-timesyncd)", is_logged=False)


def phases(status: Status) -> Iterator[Finding]:
    """Find that dapi does not drive the nodes, cannot follow the phases, or that something in a stage is urgent."""
    found = status["chain"]
    poc = found.get("poc")
    if poc is None:
        reason = "no chain is configured" if found["state"] == "not configured" else "poc.follow_chain is false"
        problem = f"dapi does not drive the nodes: {reason}"
        to_do = "have something else give them their commands (POST /admin/v1/poc/…), or let dapi follow the chain"
        yield Finding("not driving", problem, to_do, is_logged=found["state"] == "not configured")
        return
    if poc["problem"] is not None and poc["problem"] != found["reason"]:
        problem = f"the phases are not followed now: {poc['problem']}"
        yield Finding(f"phases {_kind(poc['problem'])}", problem, "dapi tries again by itself", _CHAIN_NODE_SECONDS)
    for text in poc["warnings"]:
        to_do = "look at the log of dapi"
        if "no batch came" in text:
            to_do = f"look at the node's own log, and whether it reaches {status['callbacks']['url']}"
        yield Finding(f"urgent {_NUMBERS.sub('#', text)}", text, to_do)


def nodes(status: Status) -> Iterator[Finding]:
    """Find nodes that are unreachable or refuse: a command, a question, their WebSocket."""
    broker = status["broker"]
    if broker["problem"] is not None:
        yield Finding("nodes not loaded", broker["problem"], "register these nodes again (POST /admin/v1/nodes)")
    standings = (status["chain"].get("poc") or {}).get("nodes", {})
    for node in status["nodes"]:
        if node["enabled"]:
            yield from _node(node, standings.get(node["node_id"]))


def _node(node: Status, standing: Status | None) -> Iterator[Finding]:
    node_id, last = node["node_id"], node["last"]
    failed = last is not None and not last["result"]["succeeded"] and node["command"] is None
    problem = standing["problem"] if standing is not None else last["result"]["error"] if failed else None
    if problem is not None:
        to_do = f"look whether the node runs, and answers at {node['poc_url']}; dapi tries again by itself"
        yield Finding(f"node {node_id}", _named(node_id, problem), to_do)
    websocket = node["websocket"]
    if websocket["state"] in ("refused", "waiting") and websocket["reason"] is not None:
        to_do = "its batches come by HTTP meanwhile; look at the node, and at the proxy before it"
        problem = f"{node_id}: no WebSocket: {websocket['reason']}"
        yield Finding(f"websocket {node_id}", problem, to_do, _WEBSOCKET_SECONDS)


def callbacks(status: Status) -> Iterator[Finding]:
    """Find nodes that should deliver and have never reached the callbacks."""
    for node_id, problem, to_do in unreached_callbacks(status):
        yield Finding(f"callbacks {node_id}", problem, to_do, CALLBACK_SECONDS, is_logged=False)


def admin(status: Status) -> Iterator[Finding]:
    """Find that the admin API is open to others."""
    host = status["admin"]["host"]
    if not is_loopback(host):
        problem = f"the admin API is open to whoever reaches {host}: it asks for no password"
        yield Finding(
            "admin", problem, "set api.admin_server_host to 127.0.0.1, or let only trusted hosts reach the port"
        )


CHECKS: Final[tuple[Callable[[Status], Iterator[Finding]], ...]] = (
    *(database, chain, chain_nodes, clock, phases, nodes, callbacks, admin),
)


def findings(status: Status) -> list[Finding]:
    """Return all that is wrong by this status, whether it has lasted long enough or not."""
    return [finding for check in CHECKS for finding in check(status)]


class WarningBook:
    """Remembers since when each finding is there, and which of them count already."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}
        self._counted: set[str] = set()

    def update(
        self, found: Iterable[Finding], seconds: float, now: float
    ) -> tuple[list[dict[str, Any]], list[Finding]]:
        """Return the warnings as ``GET status`` shows them, and those findings that count since this update.

        ``seconds`` is a time that never jumps, ``now`` the time of day in seconds since the epoch.
        """
        by_key = {finding.key: finding for finding in found}
        self._began = {key: self._began.get(key, (seconds, now)) for key in by_key}
        counting = [each for key, each in by_key.items() if seconds - self._began[key][0] >= each.for_seconds]
        new = [each for each in counting if each.key not in self._counted]
        self._counted = {each.key for each in counting}
        return [self._shown(each) for each in counting], new

    def _shown(self, finding: Finding) -> dict[str, Any]:
        since = finding.since if finding.since is not None else self._began[finding.key][1]
        text = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"problem": finding.problem, "since": text, "to_do": finding.to_do}


def _kind(text: str) -> str:
    """Return the part of a text that stays while its numbers change."""
    return _NUMBERS.sub("#", text.partition(":")[0])


def _named(node_id: str, problem: str) -> str:
    return problem if problem.startswith(f"{node_id}: ") else f"{node_id}: {problem}"
