"""Checks of the callbacks: why a node may not reach them, by what is known of their URL, and of the node."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status
from dapi.messages.urls import ip_address_of, is_loopback, parse_url

# A node sends every 5 s: its first delivery is over then, and 10 s more are enough to know.
CALLBACK_SECONDS = 15.0


def unreached(status: Status) -> Iterator[Finding]:
    """Find nodes that generate, have no open WebSocket, and have never delivered by HTTP.

    A node with an open WebSocket tries that first.
    """
    standings = (status["chain"].get("poc") or {}).get("nodes", {})
    callbacks = status["callbacks"]
    reached = [node["node_id"] for node in status["nodes"] if node["batches"]["by_http"]]
    for node in status["nodes"]:
        is_delivering = _generates(node, standings.get(node["node_id"])) and node["websocket"]["state"] != "open"
        if node["enabled"] and is_delivering and not node["batches"]["by_http"]:
            node_id = node["node_id"]
            known = "; ".join(_known(callbacks, node, reached))
            yield Finding(
                ProblemId.CALLBACKS_NEVER_SEEN,
                f"{node_id}: generates, has no WebSocket, and has never delivered to {callbacks['url']}: {known}",
                "set api.poc_callback_url to where this node reaches this machine, and look at the firewall between",
                node_id,
                for_seconds=CALLBACK_SECONDS,
            )


def _generates(node: Status, standing: Status | None) -> bool:
    if standing is not None:
        return bool(standing["intended"] == "GENERATE" and standing["current"] == "GENERATING")
    last = node["last"]
    is_last = last is not None and last["command"] == "StartPocCommand" and node["command"] is None
    return bool(is_last and last["result"]["succeeded"])


def _known(callbacks: Status, node: Status, reached: list[str]) -> Iterator[str]:
    url = parse_url(callbacks["url"])
    host, port = url.host, url.port
    if reached:
        yield f"others have delivered there since dapi started: {len(reached)} nodes, such as {reached[0]}"
    else:
        yield "no node has delivered there since dapi started"
    if is_loopback(host) and not is_loopback(parse_url(node["poc_url"]).host):
        yield f"{host} is the node itself, for the node"
    elif ip_address_of(host) is None and "." not in host and host != "localhost":
        yield f"{host} looks like the name of a compose service, which only containers of the same network find"
    if port != callbacks["port"]:
        yield f"the URL has port {port}, and dapi listens on {callbacks['port']}: something has to forward it"
