"""Checks of the nodes' WebSockets: why one cannot be used, by what the node answered."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding, Status

# A node that restarts its proof of work takes its WebSocket back by then.
_LASTING_SECONDS = 30.0
_POLICY_VIOLATION = 1008


def websockets(status: Status) -> Iterator[Finding]:
    """Find nodes whose WebSocket has not been open for half a minute; their batches come by HTTP, if they can."""
    for node in status["nodes"]:
        trouble = node["websocket"]["trouble"]
        if trouble is None or not node["enabled"]:
            continue
        problem_id, to_do = _cause(trouble)
        # Most nodes of the network have no WebSocket. That costs nothing where HTTP works.
        is_harmless = problem_id is ProblemId.WEBSOCKET_NOT_FOUND and node["batches"]["by_http"]
        yield Finding(
            problem_id,
            f"{node['node_id']}: no WebSocket: {trouble['reason']}",
            to_do,
            node["node_id"],
            severity=Severity.INFO if is_harmless else None,
            for_seconds=_LASTING_SECONDS,
            is_logged=True,
        )


def _cause(trouble: Status) -> tuple[ProblemId, str]:
    cause, code = trouble["cause"], trouble["code"]
    if cause == "http" and code == 404:
        return (
            ProblemId.WEBSOCKET_NOT_FOUND,
            "if the node has a WebSocket, have the nginx before it pass the upgrade on: proxy_http_version 1.1; "
            'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; if not, nothing',
        )
    if cause == "http" and code in (401, 403):
        to_do = "let this machine's address, or the node's headers_file, pass the proxy before the node"
        return ProblemId.WEBSOCKET_FORBIDDEN, to_do
    if cause == "tls":
        names = f" ({', '.join(trouble['names'])})" if trouble["names"] else ""
        host = f"set the node's host to a name in its certificate{names}"
        to_do = f"{host}, and tls.ca_file, or its tls_ca_file, to who signed it"
        return ProblemId.WEBSOCKET_TLS, to_do
    if cause == "closed_by_node" and code == _POLICY_VIOLATION:
        to_do = "see that no other client is connected to the node, and that its proof of work runs"
        return ProblemId.WEBSOCKET_POLICY, to_do
    if cause in ("dns", "tcp", "connect"):
        to_do = "look whether the node runs, and whether its host and port (websocket_url, poc_port) are right"
        return ProblemId.WEBSOCKET_UNREACHABLE, to_do
    return ProblemId.WEBSOCKET_FAILS, "look into the log of the node, and of the proxy before it"
