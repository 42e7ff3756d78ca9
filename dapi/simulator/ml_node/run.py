"""One PoW of a simulated ML node: its request, its phase, the flag of its WebSocket, and what it computes.

::

    init ──▶ STARTING ──────▶ RUNNING ──────▶ ENDING ──────▶ ENDED
                 └───────────────────────────────▲
    A shutdown or a crash of the node leads from each state to ENDED at once.

Facts: docs/protocol/node.md, 'Restarts' and 'Status of PoW'.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, Literal, Protocol

from twisted.internet.interfaces import IReactorTime

from dapi.simulator.ml_node.ledger import Attempt, Kind
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import Generator, InitRequest, validated_batch
from dapi.timing.steps import step

Phase = Literal["generate", "validate"]


class RunState(enum.Enum):
    """Where a PoW is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"


MOVES = {
    RunState.STARTING: {RunState.RUNNING, RunState.ENDING, RunState.ENDED},
    RunState.RUNNING: {RunState.ENDING, RunState.ENDED},
    RunState.ENDING: {RunState.ENDED},
    RunState.ENDED: set[RunState](),
}


class DistanceError(Exception):
    """A claimed distance is not below the target; the node's sender does not survive it."""


class BatchConnection(Protocol):
    """What a PoW needs of a WebSocket connection."""

    number: int

    @property
    def is_writable(self) -> bool:
        """Tell whether a message would be sent now."""

    def offer(self, payload: bytes) -> None:
        """Send one message."""


class PowRun:
    """One PoW.

    ``phase`` is None until the init that started the PoW sets it, and again when the PoW ends.
    ``client_connected`` is the flag by which the sender chooses the way, ``connection`` the connection that it uses.
    The two can differ: when a connection of an earlier PoW closes, the node resets the flag of this one. Messages wait
    in a queue of the PoW, so the next client gets what the one before did not read.
    """

    def __init__(self, clock: IReactorTime, request: InitRequest, settings: MLNodeSettings) -> None:
        self.request = request
        self.state = RunState.STARTING
        self.phase: Phase | None = None
        self.client_connected = False
        self.connection: BatchConnection | None = None
        self.to_validate: deque[dict[str, Any]] = deque()
        self._outgoing: deque[tuple[bytes, Attempt]] = deque()
        self._clock = clock
        self._settings = settings
        self._loaded_at = clock.seconds() + settings.load_seconds
        self._generator = Generator(request)

    @property
    def is_loaded(self) -> bool:
        """Tell whether the model is loaded."""
        return self.state is not RunState.STARTING and self._clock.seconds() >= self._loaded_at

    @property
    def status(self) -> dict[str, Any]:
        """The PoW's status as the node answers it."""
        if self.phase is not None:
            status = "GENERATING" if self.phase == "generate" else "VALIDATING"
        else:
            status = "IDLE" if self.is_loaded else "LOADING"
        return {"status": status, "is_model_initialized": self.is_loaded}

    def move_to(self, state: RunState) -> None:
        """Go into another state, as drawn; raise RuntimeError where no such move is drawn."""
        self.state = step(MOVES, self.state, state, "a simulated PoW")
        if state is RunState.ENDING:
            self.phase = None

    def attach(self, connection: BatchConnection) -> None:
        """Set the flag and use this connection from now on."""
        self.client_connected, self.connection = True, connection
        self.flush()

    def detach(self, connection: BatchConnection) -> None:
        """Reset the flag, even if the connection is not the one in use."""
        self.client_connected = False
        if self.connection is connection:
            self.connection = None

    def send(self, payload: bytes, attempt: Attempt) -> None:
        """Queue a message for the connection, and record in ``attempt`` which one carries it."""
        self._outgoing.append((payload, attempt))
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the connection takes it."""
        while self._outgoing and self.connection is not None and self.connection.is_writable:
            payload, attempt = self._outgoing.popleft()
            attempt.connection = self.connection.number
            self.connection.offer(payload)

    def compute(self) -> list[tuple[Kind, dict[str, Any]]]:
        """Return what was computed in this phase since the last call; raise DistanceError.

        Batches to validate are computed in the phase of validation alone.
        """
        if self.state is not RunState.RUNNING or not self.is_loaded:
            return []
        if self.phase == "generate":
            batches = [
                self._generator.batch(self._settings.nonces_per_batch) for _ in range(self._settings.batches_per_walk)
            ]
            return [("generated", self._settings.change_batch(batch)) for batch in batches if batch["nonces"]]
        verdicts: list[tuple[Kind, dict[str, Any]]] = []
        while self.phase == "validate" and self.to_validate:
            claimed = self.to_validate.popleft()
            if any(distance >= self.request.r_target for distance in claimed["dist"]):
                raise DistanceError
            verdict = validated_batch(self.request, claimed, with_nan=self._settings.nan_in_validated)
            verdicts.append(("validated", verdict))
        return verdicts
