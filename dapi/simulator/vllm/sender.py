"""Makes artifacts and delivers them: one pending payload at a time, tried again and at last dropped.

What becomes of the sender::

          generate           interval over, something made         an answer below 400, or the 10th failure
    IDLE ──────────▶ BUFFERING ───────────────────────────▶ TRYING ──────────────────────────▶ BUFFERING
     ▲                   │                                  │    ▲
     │                   │                           failed │    │ the wait is over
     │                   │                                  ▼    │
     └─────stop──────────┴──────────stop────────────────── WAITING

``stop`` forgets what is in the buffer, and the pending payload. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import base64
import enum
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.timing.steps import step

_VALUES = 12
_SAFE = "-_.~$&+:=@"


class SenderState(enum.Enum):
    """What the sender is at."""

    IDLE = "makes nothing"
    BUFFERING = "makes artifacts"
    TRYING = "posts its pending payload"
    WAITING = "waits for the next try"


_S = SenderState
TRANSITIONS: Final[dict[SenderState, set[SenderState]]] = {
    _S.IDLE: {_S.BUFFERING},
    _S.BUFFERING: {_S.TRYING, _S.IDLE},
    _S.TRYING: {_S.BUFFERING, _S.WAITING, _S.IDLE},
    _S.WAITING: {_S.TRYING, _S.IDLE},
}


class SenderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The real times, in seconds; ``scaled`` makes them shorter for tests."""

    interval_seconds: float = 5.0
    try_seconds: float = 10.0
    waits_seconds: tuple[float, ...] = (1, 2, 4, 8, 16, 30, 30, 30, 30)
    max_artifacts: int = 1_000_000
    artifacts_per_second: float = 100.0

    def scaled(self, factor: float) -> SenderSettings:
        """Return settings whose times are ``factor`` times as long."""
        return msgspec.structs.replace(
            self,
            interval_seconds=self.interval_seconds * factor,
            try_seconds=self.try_seconds * factor,
            waits_seconds=tuple(wait * factor for wait in self.waits_seconds),
        )


class SenderCounts(msgspec.Struct):
    """Artifacts: ``made``, of which ``delivered`` (an answer below 400), ``dropped`` by the sender or ``forgotten``."""

    made: int = 0
    delivered: int = 0
    dropped: int = 0
    forgotten: int = 0
    tries: int = 0


def callback_path(model: str, kind: str) -> str:
    """Return the path below the callback base: the model is escaped twice."""
    return f"/v2/poc-batches/{quote(quote(model, safe=_SAFE), safe=_SAFE)}/{kind}"


def generated_body(
    height: int, node_num: int, nonces: list[int], *, public_key: str = "02" + "a1" * 32, block_hash: str = "5F" * 32
) -> bytes:
    """Return a ``generated`` body, with the spaces and the order that the real one has."""
    artifacts = [{"nonce": nonce, "vector_b64": vector_of(nonce)} for nonce in nonces]
    encoding = {"dtype": "f16", "k_dim": _VALUES, "endian": "le"}
    body = {"public_key": public_key, "block_hash": block_hash, "block_height": height, "node_id": node_num}
    return json.dumps({**body, "artifacts": artifacts, "encoding": encoding}).encode()


def vector_of(nonce: int) -> str:
    """Return 12 half floats for a nonce, little-endian, in base64."""
    values = [((nonce * 31 + index * 17) % 200 - 100) / 64 for index in range(_VALUES)]
    return base64.b64encode(struct.pack(f"<{_VALUES}e", *values)).decode()


class SimulatedVllm:
    """One backend of a node: makes the nonces ``node_num + k · node_count`` of a stage, and posts them to a base URL.

    ``generate`` begins, ``stop`` ends and forgets; its Deferred fires when nothing is left. ``on_made`` is called with
    each body before it is tried, ``on_delivered`` with its nonces when it is delivered.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        *,
        node_num: int,
        node_count: int,
        model: str,
        settings: SenderSettings | None = None,
        on_made: Callable[[bytes], object] = lambda _: None,
        on_delivered: Callable[[Sequence[int]], object] = lambda _: None,
    ) -> None:
        self.settings = settings or SenderSettings()
        self.counts = SenderCounts()
        self.state = SenderState.IDLE
        self._reactor = reactor
        self.url = base_url.rstrip("/") + callback_path(model, "generated")
        self._node_num, self._node_count = node_num, node_count
        self._on_made, self._on_delivered = on_made, on_delivered
        self._height = 0
        self._next_nonce = node_num
        self._buffer: list[int] = []
        self._made_until = 0.0
        self._exchanges = Exchanges(reactor, None, self.settings.try_seconds)
        self._making = LoopingCall(self._make)
        self._making.clock = reactor
        self._sending: Deferred[None] = succeed(None)

    def generate(self, height: int) -> None:
        """Make artifacts for the stage ``height`` from now on."""
        self._turn(SenderState.BUFFERING)
        self._height, self._next_nonce = height, self._node_num
        self._made_until = self._reactor.seconds()
        self._making.start(self.settings.interval_seconds / 10).addErrback(self._broke)
        self._sending = Deferred.fromCoroutine(self._keep_sending())
        self._sending.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._sending.addErrback(self._broke)

    def stop(self) -> Deferred[None]:
        """Make nothing more, and forget what was not delivered."""
        if self._making.running:
            self._making.stop()
        self._sending.cancel()
        if self.state is not SenderState.IDLE:
            self._turn(SenderState.IDLE)
        left = self.counts.made - self.counts.delivered - self.counts.dropped - self.counts.forgotten
        self.counts.forgotten += left
        self._buffer = []
        return DeferredList([self._sending, self._exchanges.close()]).addCallback(lambda _: None)

    def _broke(self, failure: Any) -> None:
        self.log.failure("the simulated vLLM has a defect", failure)

    def _turn(self, state: SenderState) -> None:
        self.state = step(TRANSITIONS, self.state, state, "the simulated sender")

    def _make(self) -> None:
        now = self._reactor.seconds()
        number = int((now - self._made_until) * self.settings.artifacts_per_second)
        if not number:
            return
        self._made_until += number / self.settings.artifacts_per_second
        self._buffer += range(self._next_nonce, self._next_nonce + number * self._node_count, self._node_count)
        self._next_nonce += number * self._node_count
        self.counts.made += number
        if too_many := max(0, len(self._buffer) - self.settings.max_artifacts):
            del self._buffer[:too_many]
            self.counts.dropped += too_many

    async def _keep_sending(self) -> None:
        began = self._reactor.seconds()
        while True:
            now, at = self._reactor.seconds(), began + self.settings.interval_seconds
            await deferLater(self._reactor, max(0.0, at - now))
            began = max(now, at)
            if self._buffer:
                nonces, self._buffer = self._buffer, []
                began = await self._deliver(nonces)

    async def _deliver(self, nonces: list[int]) -> float:
        """Post until it is delivered, or dropped; return when the last try began, or when it was dropped."""
        body = generated_body(self._height, self._node_num, nonces)
        self._on_made(body)
        for wait in (*self.settings.waits_seconds, None):
            self._turn(SenderState.TRYING)
            began = self._reactor.seconds()
            if await self._try(body):
                self.counts.delivered += len(nonces)
                self._on_delivered(nonces)
                break
            if wait is None:
                self.counts.dropped += len(nonces)
                began = self._reactor.seconds()
                break
            self._turn(SenderState.WAITING)
            await deferLater(self._reactor, wait)
        self._turn(SenderState.BUFFERING)
        return float(began)

    async def _try(self, body: bytes) -> bool:
        """Post once, in 10 s in all; any answer below 400 counts as delivered, also a redirect."""
        self.counts.tries += 1
        trying = Deferred.fromCoroutine(self._exchanges.exchange("POST", self.url, body))
        try:
            status, _ = await trying.addTimeout(self.settings.try_seconds, self._reactor)
        except AnswerTooLongError as error:
            status = error.status
        except (NoAnswerError, DeferredTimeoutError):
            return False
        return status < 400
