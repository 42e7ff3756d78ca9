"""The words for what is kept: kinds, ways, states, and the receipt that allows an acknowledgement."""

from __future__ import annotations

import enum

import msgspec


class Via(enum.StrEnum):
    """The way a message came."""

    WEBSOCKET = "websocket"
    HTTP = "http"
    OWN = "own"
    """Made by dapi itself."""


class Kind(enum.StrEnum):
    """What a message holds."""

    GENERATED = "generated"
    VALIDATED = "validated"
    SEED = "seed"
    HARDWARE = "hardware"
    """Which nodes the participant has."""
    CLAIM = "claim"
    """What the participant is owed for an epoch."""


class State(enum.StrEnum):
    """How far a message is on its way to the chain."""

    STORED = "stored"
    IN_FLIGHT = "in_flight"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    EXPIRED = "expired"


class Receipt(msgspec.Struct, frozen=True):
    """Proof that a message is on disk: it may be acknowledged.

    ``seen`` counts its deliveries, this one included, so 1 means that it was new. 0 means that there was nothing
    to keep (a batch without a nonce).
    """

    batch_id: str
    seen: int
