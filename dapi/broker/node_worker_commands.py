"""What a node can be told to do.

A command is a value; its ``execute`` runs on the node's worker and returns a CommandResult, or raises MLNodeError where
a call to the node failed, which the worker turns into a failed result. After a command the node's WebSocket is open
if, and only if, it was a successful init, and then it is a fresh one: a node that restarted its proof of work keeps an
older connection open and never uses it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from dapi.errors import MLNodeError
from dapi.mlnode.client import InitRequest, MLNodeState, PowStatus

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from dapi.broker.node_worker import NodeWorker

UNKNOWN = "UNKNOWN"

_CONFLICT = 409
_DTYPE = "float16"


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended.

    ``status`` is what the node does now (GENERATING, VALIDATING, INFERENCE, STOPPED, …), UNKNOWN after a failure;
    ``error`` says what went wrong, None after a success.
    """

    succeeded: bool
    status: str
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> CommandResult:
        """Make the result of a command that failed."""
        return cls(False, UNKNOWN, error)


class Command(Protocol):
    """One thing that a worker does at a time."""

    async def execute(self, worker: NodeWorker) -> CommandResult:
        """Do it; raises MLNodeError where a call to the node fails."""


class StartPocCommand(msgspec.Struct, frozen=True):
    """Have the node generate."""

    request: InitRequest

    async def execute(self, worker: NodeWorker) -> CommandResult:
        """Init the node, after stopping whatever else it runs; then connect its WebSocket afresh."""
        return await _init(worker, worker.ml_client.init_generate, self.request)


class InitValidateCommand(msgspec.Struct, frozen=True):
    """Have the node validate."""

    request: InitRequest

    async def execute(self, worker: NodeWorker) -> CommandResult:
        """Init the node, after stopping whatever else it runs; then connect its WebSocket afresh."""
        return await _init(worker, worker.ml_client.init_validate, self.request)


class InferenceUpCommand(msgspec.Struct, frozen=True):
    """Have the node serve its first model."""

    async def execute(self, worker: NodeWorker) -> CommandResult:
        """Stop whatever else the node runs, close its WebSocket, and wait until it serves: that may take minutes."""
        try:
            state = await _free_for(worker, MLNodeState.INFERENCE)
        finally:
            await worker.websocket_client.stopService()
        model, settings = next(iter(worker.node.config.models.items()))
        try:
            await worker.ml_client.inference_up(model, _DTYPE, settings.args)
        except MLNodeError as error:
            # A node that serves already, or is about to, refuses to be told so again (409).
            if state is not MLNodeState.INFERENCE or error.status != _CONFLICT:
                raise
        return CommandResult(True, MLNodeState.INFERENCE)


class StopNodeCommand(msgspec.Struct, frozen=True):
    """Have the node do nothing."""

    async def execute(self, worker: NodeWorker) -> CommandResult:
        """Stop the node, then close its WebSocket: until then what it still delivers is acknowledged."""
        try:
            await worker.ml_client.stop()
        finally:
            await worker.websocket_client.stopService()
        return CommandResult(True, MLNodeState.STOPPED)


async def _init(worker: NodeWorker, init: _Init, request: InitRequest) -> CommandResult:
    """Send an init, also to a node that runs one: an equal one restarts nothing, a different one must."""
    try:
        await _free_for(worker, MLNodeState.POW)
        answer = await init(request)
    except Exception:
        await worker.websocket_client.stopService()
        raise
    worker.websocket_client.restart()
    return CommandResult(True, answer.status)


async def _free_for(worker: NodeWorker, wanted: MLNodeState) -> MLNodeState:
    """Stop the node unless it does what is wanted or nothing; return what it did."""
    state = await worker.ml_client.state()
    if state not in (MLNodeState.STOPPED, wanted):
        await worker.ml_client.stop()
    return state


class _Init(Protocol):
    def __call__(self, request: InitRequest, /) -> Deferred[PowStatus]: ...
