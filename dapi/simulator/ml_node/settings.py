"""What can be changed about a simulated ML node, also while it runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class MLNodeSettings:
    """The switches of a simulated ML node; the defaults are what was measured on a real one.

    Each is looked at when it matters, so a change takes effect at once, except where it says otherwise.
    """

    walk_seconds: float = 5.0
    """From the end of one walk over the unsent batches to the start of the next."""
    ack_wait_seconds: float = 3.0
    """How long an ack is waited for before the batch goes by HTTP."""
    deaf_seconds: float = 4.0
    """How long the node answers nothing, pings included, when it stops or restarts its PoW (3 to 6 on a real one)."""
    hung_stop_seconds: float = 5.0
    """How long stopping waits for a sender that is in the middle of an HTTP call."""
    close_seconds: float = 1.0
    """How long a shutdown waits for the client's answer to its close."""

    nonces_per_batch: int = 200
    """Nonces in each generated batch."""
    batches_per_walk: int = 1
    """Batches generated before each walk; 0 generates nothing."""
    load_seconds: float = 0.0
    """From an init until the model is loaded; nothing is generated or validated before. Read at the init."""

    websocket: bool = True
    """False: the node has no WebSocket and answers its path with 404."""
    websocket_ready: bool = True
    """False: a client is closed with 1008 ``WebSocket infrastructure not initialized``."""
    refuse_upgrade: int | Literal["junk", "silence"] | None = None
    """Answer an upgrade with this HTTP status, with junk, or never."""
    drop_every_seconds: float | None = None
    """Cut each connection, without a close frame, when it has been open for so long. Read when it opens."""
    ignore_acks: bool = False
    """No ack is seen: each batch that was offered over the WebSocket goes by HTTP as well."""
    double_every: int = 0
    """The ack of every n-th batch that is offered over the WebSocket is lost; 0: of none."""
    binary_frames: bool = False
    """Send binary instead of text frames."""
    nan_in_validated: bool = False
    """The first recomputed distance of each validated batch is NaN."""

    http_delays: dict[str, float] = field(default_factory=dict)
    """Seconds by which the answer to a path (``/api/v1/…``; ``*`` for all) comes late, its effect being immediate."""
    http_failures: dict[str, int] = field(default_factory=dict)
    """Status with which a path (``*`` for all) fails, without effect."""
    inference_up_seconds: float = 0.0
    """How long inference takes to come up."""
    inference_fails: bool = False
    """Inference does not come up: 500."""


def quick_settings(**changes: Any) -> MLNodeSettings:
    """Return settings for tests: every wait a fraction of the real one, small batches, with ``changes``."""
    quick = MLNodeSettings(
        walk_seconds=0.1, ack_wait_seconds=0.3, deaf_seconds=0.05, hung_stop_seconds=0.3, nonces_per_batch=5
    )
    return dataclasses.replace(quick, **changes)
