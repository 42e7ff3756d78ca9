"""Statuses as the page gets them, for tests of the page."""

from __future__ import annotations

import copy
from typing import Any

PROBLEM = {
    "id": "node-fails",
    "severity": "critical",
    "node_id": "node1",
    "part": "node",
    "since": "2026-01-31T17:05:09Z",
    "problem": "node1: not reached: connection refused",
    "to_do": "look whether the node runs",
    "chapter": "node-fails",
}

_NODE: dict[str, Any] = {
    "enabled": True,
    "command": None,
    "waiting": 0,
    "last": None,
    "websocket": {
        "state": "open",
        "reason": None,
        "since": 1_800_000_000.0,
        "until": None,
        "bad_messages": 0,
        "errors": 0,
    },
    "batches": {"generated": 7, "validated": 2, "by_http": 3, "doubled": 1, "not_stored": 0},
    "deliveries": {"last_at": 1_800_000_000.0, "p50_ms": 4.0, "p99_ms": 9.5},
}


def node(num: int, **changes: Any) -> dict[str, Any]:
    """A node as ``GET status`` shows it, as far as the page looks at it."""
    names = {"node_id": f"node{num}", "node_num": num, "poc_url": f"http://10.0.0.{num}:8080"}
    return copy.deepcopy(_NODE) | names | changes


def status(count: int = 2, **changes: Any) -> dict[str, Any]:
    """A status of a dapi that follows a chain, in the middle of a stage."""
    standing = {"intended": "GENERATE", "current": "GENERATING", "problem": None}
    return {
        "problems": [],
        "version": "1.2.3",
        "batches": {"stored": 1, "in_flight": 2, "confirmed": 30, "failed": 0, "expired": 0},
        "outbox": {"pending": 0},
        "nodes": [node(num + 1) for num in range(count)],
        "chain": {
            "state": "submitting",
            "reason": None,
            "chain_id": "chain-1",
            "height": 70,
            "poc": {
                "situation": {
                    "height": 70,
                    "epoch_index": 3,
                    "phase": "PoCGenerate",
                    "stage_height": 65,
                    "is_confirmation": False,
                    "blocks_left": 4,
                },
                "nodes": {f"node{num + 1}": dict(standing) for num in range(count)},
                "validation": None,
            },
        },
    } | changes


POC_V2: dict[str, Any] = {
    "relay": {
        "counts": {"kept": 40, "set_aside": 1, "late": 2},
        "waiting": 3,
        "unsettled": 4,
        "held_count": 5,
        "away": {"seconds": 7.5, "reason": "Connection was refused"},
        "bytes": 123_456,
    },
    "poc_v2_watch": {
        "height": 1_728_030,
        "phase": "PoCGenerate",
        "stages": [
            {
                "height": 1_728_000,
                "kind": "confirmation",
                "model": "Qwen/<b>Qwen3</b>",
                "stored": 1250,
                "committed": 825,
                "growth_per_second": 41.7,
                "share_at_a_third": 0.33,
                "votes": 3,
                "participants": 7,
                "restarts": 1,
                "handed_on": {"node1": 700, "node2": 560},
            },
            {
                "height": 1_710_720,
                "kind": "regular",
                "model": "Qwen/<b>Qwen3</b>",
                **dict.fromkeys(("stored", "committed", "growth_per_second", "share_at_a_third", "votes")),
                **dict.fromkeys(("participants", "handed_on")),
                "restarts": 0,
            },
        ],
    },
}
"""A relay and a watch in the middle of a stage, as ``GET status`` shows them."""
