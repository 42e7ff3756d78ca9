"""What the page shows, as a pure function of the status, and the difference of two views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

View: TypeAlias = dict[str, Any]
"""JSON data; ``nodes`` has a row for each node, by its id."""

_STAGES_SHOWN = 8
_STAGE_FIELDS = (
    *("height", "kind", "model", "stored", "committed", "growth_per_second", "share_at_a_third"),
    *("votes", "participants", "restarts"),
)


def view(status: Mapping[str, Any], restart: Mapping[str, Any] | None) -> View:
    """Make a view of what ``GET status`` and ``GET restart`` show (None: no chain is followed)."""
    chain = status["chain"]
    poc = chain.get("poc") or {}
    standings = poc.get("nodes", {})
    return {
        "version": status["version"],
        "problems": status["problems"],
        "restart": restart,
        "chain": {name: chain.get(name) for name in ("state", "reason", "chain_id", "height")},
        "situation": poc.get("situation"),
        "validation": poc.get("validation"),
        "poc_v2": _poc_v2(status),
        "batches": status["batches"],
        "pending": status["outbox"]["pending"],
        "nodes": {node["node_id"]: _row(node, standings.get(node["node_id"])) for node in status["nodes"]},
    }


def _poc_v2(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what there is of PoC v2, None where neither the relay nor the watch is set."""
    watch, relay = status.get("poc_v2_watch"), status.get("relay")
    if watch is None:
        return None
    return {
        "height": watch["height"],
        "phase": watch["phase"],
        "relay": None
        if relay is None
        else {
            **{name: relay["counts"].get(name, 0) for name in ("kept", "set_aside", "late")},
            **{name: relay[name] for name in ("waiting", "unsettled")},
            "held": relay["held_count"],
            "away": relay["away"]["reason"] if relay["away"] is not None else None,
        },
        "stages": [
            {
                **{name: stage[name] for name in _STAGE_FIELDS},
                "handed_on": sum(stage["handed_on"].values()) if stage["handed_on"] is not None else None,
            }
            for stage in watch["stages"][:_STAGES_SHOWN]
        ],
    }


def _row(node: Mapping[str, Any], standing: Mapping[str, Any] | None) -> dict[str, Any]:
    websocket, batches, deliveries = node["websocket"], node["batches"], node["deliveries"]
    last = node["last"]
    failed = last is not None and not last["result"]["succeeded"] and node["command"] is None
    return {
        "num": node["node_num"],
        "enabled": node["enabled"],
        "url": node["poc_url"],
        "duty": standing["intended"] if standing else None,
        "does": standing["current"] if standing else None,
        "command": node["command"],
        "problem": standing["problem"] if standing else last["result"]["error"] if failed else None,
        "socket": websocket["state"],
        "reason": websocket["reason"],
        "since": websocket["since"],
        "until": websocket["until"],
        "by_websocket": batches["generated"] + batches["validated"] - batches["by_http"],
        "by_http": batches["by_http"],
        "doubled": batches["doubled"],
        "errors": batches["not_stored"] + websocket["bad_messages"] + websocket["errors"],
        **(deliveries or {"last_at": None, "p50_ms": None, "p99_ms": None}),
    }


def patch(before: View, after: View) -> View:
    """Return what has changed: whole values, but of ``nodes`` the changed fields of each row, and None for one gone."""
    changed = {name: value for name, value in after.items() if name != "nodes" and before.get(name) != value}
    rows = {node_id: _changed(before["nodes"].get(node_id), row) for node_id, row in after["nodes"].items()}
    gone = {node_id: None for node_id in before["nodes"] if node_id not in after["nodes"]}
    nodes = {node_id: fields for node_id, fields in rows.items() if fields} | gone
    return {**changed, **({"nodes": nodes} if nodes else {})}


def _changed(before: Mapping[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    if before is None:
        return after
    return {name: value for name, value in after.items() if before[name] != value}
