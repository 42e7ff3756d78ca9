"""The commands that a node can be given.

A command is a value. The node's worker runs its ``execute``, which returns a CommandResult or raises MLNodeError; the
worker turns the error into a failed result. After a successful init the node's WebSocket is open, and a new one: a node
that restarted its proof of work keeps an older connection open and never uses it again. After any other command it is
closed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dapi.broker.nodes import Node
from dapi.errors import MLNodeError
from dapi.messages.printable import printable
from dapi.mlnode.client import InferenceUpState, InitRequest, MLNodeClient, MLNodeState, PowStatus
from dapi.poc.websocket_client import WebSocketClient

_UP_POLL_SECONDS = 2.0
_NO_SUCH_CALL = (404, 405)
# Neither says anything about inference: no answer, or that of a server which knows no inference at this address.
NOT_OF_INFERENCE = (None, 404)


class NodeFailure(enum.StrEnum):
    """Why a command, or a question, failed."""

    UNREACHABLE = "unreachable"
    """No answer came, or none in time."""
    REFUSED = "refused"
    """The node, or a proxy before it, answered, and did not do it."""
    NOT_EXECUTED = "not_executed"
    """It was cut short, or never begun: that says nothing of the node."""
    REHEARSAL = "rehearsal"
    """A rehearsal failed: that is its result, and no failure of a duty."""
    DEFECT = "defect"
    """dapi itself failed."""

    @classmethod
    def of(cls, error: MLNodeError) -> NodeFailure:
        """Return what the error of a call means."""
        return cls.REFUSED if error.is_answered else cls.UNREACHABLE


class CommandResult(msgspec.Struct, frozen=True):
    """How a command ended.

    ``status`` is what the node does now (GENERATING, VALIDATING, INFERENCE, STOPPED, …), or UNKNOWN after a failure;
    ``error`` says what went wrong and ``failure`` of which kind that is, or both are None after a success.
    ``is_model_initialized`` is what an init was answered.
    """

    succeeded: bool
    status: str
    error: str | None = None
    is_model_initialized: bool = False
    failure: NodeFailure | None = None

    @classmethod
    def failed(cls, error: str, failure: NodeFailure) -> CommandResult:
        """Make the result of a command that failed."""
        return cls(False, "UNKNOWN", error, failure=failure)


@attrs.frozen
class NodeAccess:
    """What a command works with. ``pause`` waits for so many seconds; it is cut short together with the command."""

    node: Node
    ml_client: MLNodeClient
    websocket_client: WebSocketClient
    pause: Callable[[float], Deferred[None]]


class Command(Protocol):
    """One thing that a worker does."""

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Do it; raises MLNodeError when a call to the node fails."""


class StartPocCommand(msgspec.Struct, frozen=True):
    """Have the node generate."""

    request: InitRequest

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Stop what the node runs unless that is proof of work, init the node, then open its WebSocket anew."""
        return await _init(access, access.ml_client.init_generate, self.request)


class InitValidateCommand(msgspec.Struct, frozen=True):
    """Have the node validate."""

    request: InitRequest

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Stop what the node runs unless that is proof of work, init the node, then open its WebSocket anew."""
        return await _init(access, access.ml_client.init_validate, self.request)


class InferenceUpCommand(msgspec.Struct, frozen=True):
    """Have the node serve its first model.

    That may take minutes; the worker cuts it short for any command that comes after it. Given again to a node that is
    about to serve, the command only waits.
    """

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Stop what the node runs unless it serves or is about to, close its WebSocket, and wait until it serves."""
        try:
            stage = await _inference_stage(access)
        finally:
            await access.websocket_client.stopService()
        if stage is InferenceUpState.NOT_STARTED:
            stage = await _begin_inference(access)
        error = None
        while stage is InferenceUpState.IN_PROGRESS:
            await access.pause(_UP_POLL_SECONDS)
            answer = await access.ml_client.inference_up_status()
            stage, error = answer.status, answer.error
        if stage is not InferenceUpState.COMPLETED:
            reason = f"{stage}: {printable(error)}" if error else stage
            raise MLNodeError(access.node.id, "inference/up", reason, is_answered=True)
        return CommandResult(True, MLNodeState.INFERENCE)


class StopNodeCommand(msgspec.Struct, frozen=True):
    """Have the node do nothing."""

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Stop the node, then close its WebSocket: what the node delivers until then is acknowledged."""
        try:
            await access.ml_client.stop()
        finally:
            await access.websocket_client.stopService()
        return CommandResult(True, MLNodeState.STOPPED)


async def _init(
    access: NodeAccess, init: Callable[[InitRequest], Deferred[PowStatus]], request: InitRequest
) -> CommandResult:
    """Send an init, even to a node whose proof of work runs: an equal init restarts nothing, a different one has to."""
    try:
        if await access.ml_client.state() not in (MLNodeState.STOPPED, MLNodeState.POW):
            await access.ml_client.stop()
        answer = await init(request)
    except Exception:
        await access.websocket_client.stopService()
        raise
    access.websocket_client.restart()
    return CommandResult(True, answer.status, is_model_initialized=answer.is_model_initialized is True)


async def _inference_stage(access: NodeAccess) -> InferenceUpState:
    """Return COMPLETED for a node that serves, IN_PROGRESS for one that is about to; else stop it: NOT_STARTED.

    A node says INFERENCE from the moment it begins: one that is not healthy yet must not be stopped, or it would begin
    for ever. When dapi cannot reach inference at its address, the node's own word is enough.
    """
    state = await access.ml_client.state()
    if state is MLNodeState.INFERENCE:
        try:
            await access.ml_client.inference_health(access.node.config.inference_url)
        except MLNodeError as error:
            stage = await _reported_stage(access.ml_client)
            if stage is InferenceUpState.IN_PROGRESS:
                return stage
            if stage is InferenceUpState.COMPLETED and error.status in NOT_OF_INFERENCE:
                return stage
        else:
            return InferenceUpState.COMPLETED
    if state is not MLNodeState.STOPPED:
        await access.ml_client.stop()
    return InferenceUpState.NOT_STARTED


async def _reported_stage(client: MLNodeClient) -> InferenceUpState | None:
    """Return how far the node says that it is; None for a node without the asynchronous form."""
    try:
        return (await client.inference_up_status()).status
    except MLNodeError as error:
        if error.status not in _NO_SUCH_CALL:
            raise
        return None


async def _begin_inference(access: NodeAccess) -> InferenceUpState:
    """Have a stopped node begin to serve; one without the asynchronous form serves when this returns."""
    model, settings = next(iter(access.node.config.models.items()))
    try:
        await access.ml_client.inference_up_async(model, settings.args)
    except MLNodeError as error:
        if error.status not in _NO_SUCH_CALL:
            raise
        await access.ml_client.inference_up(model, settings.args)
        return InferenceUpState.COMPLETED
    return InferenceUpState.IN_PROGRESS
