"""Makes artifacts and delivers them: one pending payload at a time, tried again and at last dropped.

What becomes of the sender::

          generate           interval over, something made         an answer below 400, or the 10th failure
    IDLE ──────────▶ BUFFERING ───────────────────────────▶ TRYING ──────────────────────────▶ BUFFERING
     ▲                   │                                  │    ▲
     │                   │                           failed │    │ the wait is over
     │                   │                                  ▼    │
     └─────stop──────────┴──────────stop────────────────── WAITING

``stop`` forgets what is in the buffer, and the pending payload. Results of validations go a way of their own
(``results``), also while artifacts are made. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import base64
import enum
import json
import struct
import uuid
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from dapi.http.exchange import Exchanges
from dapi.simulator.vllm.delivery import Delivery
from dapi.simulator.vllm.results import ResultSender, ValidationJob, validated_body
from dapi.simulator.vllm.settings import SenderCounts, SenderSettings
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
    each body before it is tried, ``on_delivered`` with its nonces when it is delivered. ``validate`` makes a result,
    and ``on_result`` is called with its body when it is delivered. ``jobs_waiting`` are the jobs that came while
    artifacts were made. ``exchanges`` are those of a test.
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
        on_result: Callable[[bytes], object] = lambda _: None,
        random: Random | None = None,
        exchanges: Exchanges | None = None,
    ) -> None:
        self.settings = settings or SenderSettings()
        self.counts = SenderCounts()
        self.state = SenderState.IDLE
        self.jobs_waiting = 0
        self._reactor = reactor
        self._random = random or Random()  # noqa: S311 - an id is no secret
        self._delivery = Delivery(reactor, self.settings, exchanges)
        base_url = base_url.rstrip("/")
        self._url = base_url + callback_path(model, "generated")
        results_url = base_url + callback_path(model, "validated")
        self.results = ResultSender(self._delivery, results_url, self.settings, on_result)
        self._node_num, self._node_count = node_num, node_count
        self._on_made, self._on_delivered = on_made, on_delivered
        self._height = 0
        self._next_nonce = node_num
        self._buffer: list[int] = []
        self._made_until = 0.0
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

    def validate(self, job: ValidationJob) -> None:
        """Make a result, and deliver it.

        A job that comes while artifacts are made waits; the stop that ends that forgets it.
        """
        if self.state is not SenderState.IDLE:
            self.jobs_waiting += 1
            return
        request_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self.results.add(validated_body(job, self._node_num, request_id))

    def stop(self) -> Deferred[None]:
        """Make nothing more, and forget what was not delivered, and the jobs that wait."""
        if self._making.running:
            self._making.stop()
        self._sending.cancel()
        if self.state is not SenderState.IDLE:
            self._turn(SenderState.IDLE)
        self.counts.forget()
        self._buffer = []
        self.jobs_waiting = 0
        stopped = [self._sending, self.results.stop(), self._delivery.close()]
        return DeferredList(stopped).addCallback(lambda _: None)

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
        outcome = await self._delivery.deliver(
            self._url, body, on_try=self._begin_try, on_wait=lambda: self._turn(SenderState.WAITING)
        )
        if outcome.is_delivered:
            self.counts.delivered += len(nonces)
            self._on_delivered(nonces)
        else:
            self.counts.dropped += len(nonces)
        self._turn(SenderState.BUFFERING)
        return float(outcome.began_at if outcome.is_delivered else self._reactor.seconds())

    def _begin_try(self) -> None:
        self._turn(SenderState.TRYING)
        self.counts.tries += 1
