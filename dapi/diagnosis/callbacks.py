"""Checks of the callbacks: why a node may not reach them, by what is known of their URL, and of the node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.nodes import standings_of
from dapi.diagnosis.problem import Finding, Status
from dapi.messages.urls import ip_address_of, is_loopback, parse_url

# A node sends every 5 s: its first delivery is over then, and 10 s more are enough to know.
CALLBACK_SECONDS = 15.0
HOST_FAULTS: Final = {
    ProblemId.CALLBACK_URL_LOOPBACK: "is the node itself, for the node",
    ProblemId.CALLBACK_URL_NAME: "looks like the name of a compose service, which only containers of the same network"
    " find",
}
"""Why a node cannot reach a host by its name, as what is said after the name."""
_SET_URL = "set api.poc_callback_url to where the nodes reach this machine"


def url(status: Status) -> Iterator[Finding]:
    """Find a callback URL that cannot work for some nodes.

    It is critical while one of them generates, has no open WebSocket, and has never delivered by HTTP.
    """
    callbacks = status["callbacks"]
    host = parse_url(callbacks["url"]).host
    silent = [node for node in status["nodes"] if node["enabled"] and not node["batches"]["by_http"]]
    faults = [_fault_of_host(host, node) for node in silent]
    for problem_id, words in HOST_FAULTS.items():
        nodes = [node for node, fault in zip(silent, faults, strict=True) if fault is problem_id]
        if nodes:
            is_losing = any(_lacks_a_way(status, node) for node in nodes)
            problem = f"{_listed(nodes)} cannot reach {callbacks['url']}: {host} {words}"
            severity = Severity.CRITICAL if is_losing else Severity.WARNING
            yield Finding(problem_id, problem, _SET_URL, severity=severity)


def unreached(status: Status) -> Iterator[Finding]:
    """Find nodes that generate, have no open WebSocket, and have never delivered by HTTP.

    A node with an open WebSocket tries that first. What ``url`` tells is not told again.
    """
    callbacks = status["callbacks"]
    url = parse_url(callbacks["url"])
    reached = [node for node in status["nodes"] if node["batches"]["by_http"]]
    has_other_port = url.port != callbacks["port"] and not reached
    for node in status["nodes"]:
        if not _lacks_a_way(status, node) or _fault_of_host(url.host, node) is not None:
            continue
        node_id = node["node_id"]
        problem = f"{node_id}: generates, has no WebSocket, and has never delivered to {callbacks['url']}"
        if has_other_port:
            problem_id, known = (
                ProblemId.CALLBACK_URL_PORT,
                f"the URL has port {url.port}, and dapi listens on {callbacks['port']}",
            )
            to_do = f"have port {url.port} forwarded to dapi's, or {_SET_URL}"
        else:
            problem_id, known = ProblemId.CALLBACKS_NEVER_SEEN, "no node has delivered there since dapi started"
            to_do = f"{_SET_URL}, and look at the firewall between"
            if reached:
                known = f"others have delivered there since dapi started: {_listed(reached)}"
                to_do = "look at the firewall and the routes between this node and this machine"
        yield Finding(problem_id, f"{problem}: {known}", to_do, node_id, for_seconds=CALLBACK_SECONDS)


def _lacks_a_way(status: Status, node: Status) -> bool:
    """Tell whether a node has batches to deliver, and neither way has worked."""
    is_open = node["websocket"]["state"] == "open"
    is_delivering = _generates(node, standings_of(status).get(node["node_id"])) and not is_open
    return bool(node["enabled"] and is_delivering and not node["batches"]["by_http"])


def _generates(node: Status, standing: Status | None) -> bool:
    if standing is not None:
        return bool(standing["intended"] == "GENERATE" and standing["current"] == "GENERATING")
    last = node["last"]
    is_last = last is not None and last["command"] == "StartPocCommand" and node["command"] is None
    return bool(is_last and last["result"]["succeeded"])


def _fault_of_host(host: str, node: Status) -> ProblemId | None:
    """Return why a node cannot reach this host, as far as the two names tell."""
    is_near, is_bare_name = _sort_of(host)
    if not is_near and not is_bare_name:
        return None
    return fault_between(host, _host_of(node["poc_url"]))


def fault_between(host: str, node_host: str) -> ProblemId | None:
    """Return why a node of that host cannot reach the other one, as far as the two names tell."""
    is_near, is_bare_name = _sort_of(host)
    if not is_near and not is_bare_name:
        return None
    is_near_node, is_bare_node = _sort_of(node_host)
    if is_near:
        return None if is_near_node else ProblemId.CALLBACK_URL_LOOPBACK
    # Between containers of one network, both have such names.
    return None if is_bare_node or is_near_node else ProblemId.CALLBACK_URL_NAME


# Taking a URL apart is dear, and there may be thousands of nodes.
@lru_cache(maxsize=2**14)
def _host_of(url: str) -> str:
    return parse_url(url).host


@lru_cache(maxsize=2**14)
def _sort_of(host: str) -> tuple[bool, bool]:
    """Tell whether a host is loopback, and whether it is a name without a dot."""
    is_near = is_loopback(host)
    return is_near, ip_address_of(host) is None and "." not in host and not is_near


def _listed(nodes: Sequence[Status]) -> str:
    first = nodes[0]["node_id"]
    return str(first) if len(nodes) == 1 else f"{len(nodes)} nodes, such as {first},"
