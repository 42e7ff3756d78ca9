"""A rehearsal of PoC on one node, off the chain: whether it generates, and whether its batches come, both ways.

The node is given an init like any other, but for a made-up stage, and delivers as it will in a PoC: to the same
WebSocketClient, and to the same callback URL with the node's own token. ``BatchHandler`` tells its batches by their
block hash, acknowledges them, and hands them on to the rehearsal alone: none is stored.

The states of a rehearsal::

    RUNNING ──all steps have passed────────────────────▶ PASSED
       │ └────a step has failed────────────────────────▶ FAILED
       └──────another command came, or dapi stops──────▶ CUT_SHORT
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from dapi.broker.node_worker_commands import CommandResult, NodeAccess, NodeFailure
from dapi.errors import MLNodeError
from dapi.messages import ProofBatch, Via
from dapi.messages.printable import printable
from dapi.messages.urls import without_user
from dapi.mlnode.client import InitRequest, MLNodeState
from dapi.poc.batch_handler import BatchHandler
from dapi.timing.clock import unix_seconds
from dapi.timing.steps import step
from dapi.websocket.client import WebSocketState

_LOOK_SECONDS = 0.1


class RehearsalState(enum.StrEnum):
    """The states that are drawn above."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CUT_SHORT = "cut_short"


_S = RehearsalState
TRANSITIONS: Final[Mapping[RehearsalState, set[RehearsalState]]] = {
    _S.RUNNING: {_S.PASSED, _S.FAILED, _S.CUT_SHORT},
    **{ended: set() for ended in (_S.PASSED, _S.FAILED, _S.CUT_SHORT)},
}


class StepResult(enum.StrEnum):
    """How a step of a rehearsal ended."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


class RehearsalStep(msgspec.Struct, frozen=True):
    """One step: what was ``found``, after how many ``seconds``, and what ``to_do`` where it failed."""

    name: str
    result: StepResult
    found: str
    seconds: float
    to_do: str | None = None


class RehearsalTimes(msgspec.Struct, frozen=True):
    """How many seconds each step may take, and for how long the rate is measured.

    A node loads its model after the init, before its first batch.
    """

    websocket: float = 30.0
    first_batch: float = 240.0
    rate: float = 15.0
    callback: float = 60.0

    @property
    def longest(self) -> float:
        """How long all of it takes at most, with the calls to the node."""
        return self.websocket + self.first_batch + self.rate + self.callback + 60.0


class RehearsalStatus(msgspec.Struct, frozen=True):
    """How far a rehearsal is; times are unix seconds. ``nonces_per_second`` came while the rate was measured."""

    node_id: str
    state: RehearsalState
    steps: list[RehearsalStep]
    nonces_per_second: float | None
    began_at: float
    ended_at: float | None


@attrs.define
class _Arrived:
    """What has come one way."""

    batches: int = 0
    nonces: int = 0


class RehearseCommand:
    """Rehearses PoC on a node: init, WebSocket, a batch over it, the rate, a batch by HTTP, stop.

    It gives way to any command that comes after it, but for InferenceUpCommand, which waits for its end. ``request`` is
    the init, for a made-up stage. The node is stopped at the end, unless another command cuts it short.
    """

    def __init__(
        self, reactor: IReactorTime, request: InitRequest, handler: BatchHandler, times: RehearsalTimes
    ) -> None:
        self.was_serving = False
        self._reactor = reactor
        self._request = request
        self._handler = handler
        self._times = times
        self._began = reactor.seconds()
        self._steps: list[RehearsalStep] = []
        self._arrived = {via: _Arrived() for via in Via}
        self._rate: float | None = None
        self._ended_at: float | None = None
        self.state = RehearsalState.RUNNING

    def status(self) -> RehearsalStatus:
        """Return how far it is."""
        return RehearsalStatus(
            node_id=self._handler.node_id or "",
            state=self.state,
            steps=list(self._steps),
            nonces_per_second=self._rate,
            began_at=unix_seconds(self._reactor, self._began),
            ended_at=self._ended_at,
        )

    def turn(self, state: RehearsalState) -> None:
        """Go to another state; raises RuntimeError when the drawing has no such way."""
        self.state = step(TRANSITIONS, self.state, state, "a rehearsal")
        self._ended_at = unix_seconds(self._reactor)

    async def execute(self, access: NodeAccess) -> CommandResult:
        """Do all steps; what fails is told in the steps, and does not raise."""
        self._handler.follow_rehearsal(self._take)
        try:
            await self._rehearse(access)
        except CancelledError:
            # The next command comes at once: it finds the node in PoW, as one that another API node has commanded.
            self._add("end", StepResult.FAIL, "cut short: another command came, or dapi stops", self._began)
            self.turn(RehearsalState.CUT_SHORT)
            raise
        finally:
            self._handler.follow_rehearsal(None)
        failed = next((step for step in self._steps if step.result is StepResult.FAIL), None)
        self.turn(RehearsalState.PASSED if failed is None else RehearsalState.FAILED)
        if failed is not None:
            problem = f"{access.node.id}: rehearsal: {failed.name}: {failed.found}"
            return CommandResult.failed(problem, NodeFailure.REHEARSAL)
        return CommandResult(True, MLNodeState.STOPPED)

    async def _rehearse(self, access: NodeAccess) -> None:
        if not await self._init(access):
            return
        has_websocket = await self._websocket(access)
        if await self._first_batch(access, has_websocket):
            await self._measure(access)
            await self._callback(access)
        await access.websocket_client.stopService()
        await self._stop(access)

    async def _init(self, access: NodeAccess) -> bool:
        began = self._reactor.seconds()
        try:
            before = await access.ml_client.state()
            self.was_serving = before is MLNodeState.INFERENCE
            if before not in (MLNodeState.STOPPED, MLNodeState.POW):
                await access.ml_client.stop()
            answer = await access.ml_client.init_generate(self._request)
        except MLNodeError as error:
            to_do = f"look whether the node runs, and answers at {without_user(access.node.poc_url)}"
            return self._fail("init", str(error), began, to_do)
        return self._pass("init", f"answered {answer.status}; before, the node was {before}", began)

    async def _websocket(self, access: NodeAccess) -> bool:
        began, client = self._reactor.seconds(), access.websocket_client
        client.restart()
        if await self._until(access, lambda: client.status().state is WebSocketState.OPEN, self._times.websocket):
            return self._pass("WebSocket", "is open", began)
        reason = client.status().reason or f"not open after {self._times.websocket:.0f} s"
        return self._fail("WebSocket", printable(reason), began, "look at the node, and at the proxy before it")

    async def _first_batch(self, access: NodeAccess, has_websocket: bool) -> bool:
        began = self._reactor.seconds()
        over_websocket, by_http = self._arrived[Via.WEBSOCKET], self._arrived[Via.HTTP]
        # A node delivers over its WebSocket first, and by HTTP what it could not deliver there.
        await self._until(access, lambda: bool(over_websocket.batches or by_http.batches), self._times.first_batch)
        name = "first batch over the WebSocket"
        if over_websocket.batches:
            return self._pass(name, "came, and was acknowledged", began)
        if by_http.batches and not has_websocket:
            self._add(name, StepResult.SKIPPED, "there is no WebSocket; a batch came by HTTP", began)
            return True
        if by_http.batches:
            self._fail(name, "came by HTTP, although the WebSocket is open", began, "look at the node's own log")
            return True
        found = f"no batch came within {self._times.first_batch:.0f} s, neither way"
        return self._fail(name, found, began, "look at the node's own log: does its PoW load its model, and compute?")

    async def _measure(self, access: NodeAccess) -> None:
        began, before = self._reactor.seconds(), self._total()
        await access.pause(self._times.rate)
        seconds, after = self._reactor.seconds() - began, self._total()
        nonces, batches = after.nonces - before.nonces, after.batches - before.batches
        self._rate = round(nonces / seconds, 3) if seconds else None
        found = f"{self._rate} nonces/s: {batches} batches with {nonces} nonces in {seconds:.0f} s"
        if nonces:
            self._pass("rate", found, began)
        else:
            self._fail("rate", found, began, "look at the node's own log: nothing more came after the first batch")

    async def _callback(self, access: NodeAccess) -> None:
        """Close the WebSocket: what the node generates from now on has to come by HTTP."""
        name, began, by_http = "first batch over the callback", self._reactor.seconds(), self._arrived[Via.HTTP]
        await access.websocket_client.stopService()
        if await self._until(access, lambda: bool(by_http.batches), self._times.callback):
            self._pass(name, "came, and got its 200", began)
            return
        found = f"none came within {self._times.callback:.0f} s after the WebSocket was closed"
        to_do = "set api.poc_callback_url to where this node reaches this machine, and look at the firewall between"
        self._fail(name, found, began, to_do)

    async def _stop(self, access: NodeAccess) -> None:
        began = self._reactor.seconds()
        try:
            await access.ml_client.stop()
        except MLNodeError as error:
            self._fail("stop", str(error), began, "look at the node; dapi brings it back to its duty by itself")
        else:
            self._pass("stop", "the node is stopped", began)

    async def _until(self, access: NodeAccess, look: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``look`` is true; return False after so many seconds."""
        until = self._reactor.seconds() + seconds
        while not look():
            if self._reactor.seconds() >= until:
                return False
            await access.pause(_LOOK_SECONDS)
        return True

    def _take(self, batch: ProofBatch, via: Via) -> None:
        # One of an earlier rehearsal may still come.
        if batch.block_hash == self._request.block_hash:
            arrived = self._arrived[via]
            arrived.batches += 1
            arrived.nonces += len(batch.nonces)

    def _total(self) -> _Arrived:
        ways = self._arrived.values()
        return _Arrived(sum(way.batches for way in ways), sum(way.nonces for way in ways))

    def _pass(self, name: str, found: str, began: float) -> bool:
        self._add(name, StepResult.PASS, found, began)
        return True

    def _fail(self, name: str, found: str, began: float, to_do: str) -> bool:
        self._add(name, StepResult.FAIL, found, began, to_do)
        return False

    def _add(self, name: str, result: StepResult, found: str, began: float, to_do: str | None = None) -> None:
        seconds = round(self._reactor.seconds() - began, 3)
        self._steps.append(RehearsalStep(name, result, found, seconds, to_do))
