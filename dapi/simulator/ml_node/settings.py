"""The times and faults of a simulated ML node; they can be changed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

_QUICK: Final = 1 / 20
# The settings that were measured on a real node.
_MEASURED: Final = (
    *("walk_seconds", "ack_wait_seconds", "init_seconds", "restart_seconds", "stop_seconds"),
    *("hung_stop_seconds", "ping_seconds", "silence_seconds", "send_seconds"),
)


@dataclass
class MLNodeSettings:
    """Times and faults. The defaults are the times of a real node (docs/protocol/measured.md, 'Times of a real node').

    A change takes effect at once, except where a setting says otherwise.
    """

    walk_seconds: float = 5.0
    """From the end of one walk over the unsent batches to the start of the next."""
    ack_wait_seconds: float = 3.0
    """How long the sender waits for an ack before it sends the batch by HTTP."""
    init_seconds: float = 1.1
    """How long the start of a PoW takes."""
    restart_seconds: tuple[float, float] = (1.9, 5.5)
    """At least, at most: how long an init takes that ends one PoW and starts another."""
    stop_seconds: tuple[float, float] = (3.0, 5.0)
    """At least, at most: how long the end of a PoW takes. The node answers nothing meanwhile, pings included."""
    hung_stop_seconds: float = 5.0
    """How long the end of a PoW waits for a sender that is in an HTTP call."""
    ping_seconds: float = 20.0
    """From the pong to the node's next ping."""
    silence_seconds: float = 20.0
    """How long the node waits for a pong before it closes with 1011."""
    send_seconds: float = 5.0
    """How long sending a frame may take before the node leaves the connection open and unused."""
    close_seconds: float = 1.0
    """How long the node waits for the client's answer to its close."""

    nonces_per_batch: int = 200
    """Nonces in each generated batch."""
    batches_per_walk: int = 1
    """Batches generated before each walk; 0 generates nothing."""
    change_batch: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch
    """Makes of each generated batch the one that is delivered, such as one of another stage."""
    load_seconds: float = 0.0
    """From an init until the model is loaded; nothing is generated or validated before. Read at the init."""

    websocket: bool = True
    """False: the node has no WebSocket and answers its path with 404."""
    websocket_ready: bool = True
    """False: a client is closed with 1008 ``WebSocket infrastructure not initialized``."""
    refuse_upgrade: int | Literal["junk", "silence"] | None = None
    """Answer an upgrade with this HTTP status, with junk, or never."""
    drop_every_seconds: float | None = None
    """Cut each connection, without a close frame, after so long. Read when it opens."""
    ignore_acks: bool = False
    """Ignore all acks: each batch that was offered over the WebSocket goes by HTTP as well."""
    double_every: int = 0
    """Lose the ack of every n-th batch that is offered over the WebSocket; 0: of none."""
    binary_frames: bool = False
    """Send binary instead of text frames."""
    nan_in_validated: bool = False
    """Compute NaN as the first distance of each validated batch."""

    http_delays: dict[str, float] = field(default_factory=dict)
    """By path (``/api/v1/…``; ``*`` for all): how many seconds the answer is late. The effect of the call is not."""
    http_failures: dict[str, int] = field(default_factory=dict)
    """By path (``*`` for all): the status with which a call fails, without effect."""
    inference_up_seconds: float = 0.0
    """How long inference takes to start."""
    inference_fails: bool = False
    """Inference fails to start: 500."""


def scaled_settings(factor: float, **changes: Any) -> MLNodeSettings:
    """Return settings whose measured times are multiplied by ``factor``, with ``changes``."""
    scaled = {
        name: tuple(each * factor for each in seconds) if isinstance(seconds, tuple) else seconds * factor
        for name, seconds in ((name, getattr(MLNodeSettings, name)) for name in _MEASURED)
    }
    return MLNodeSettings(**{**scaled, **changes})


def quick_settings(**changes: Any) -> MLNodeSettings:
    """Return settings for tests: a twentieth of each measured time, small batches, with ``changes``.

    The waits for an ack and for a pong are longer: how long a client takes depends on the machine, not on the factor.
    """
    waits = {"ack_wait_seconds": 0.3, "silence_seconds": 3.0}
    return scaled_settings(_QUICK, **{**waits, "nonces_per_batch": 5, **changes})
