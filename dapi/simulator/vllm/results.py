"""The results of validations, on their way from a vLLM to its callback URL.

What becomes of a result::

    add                 one of the 10 is free          an answer below 400
    ───▶ in the queue ──────────────────────▶ tried ─────────────────────────▶ delivered
              │                                │
              │ it is the oldest of 10,001     │ the 10th failure
              └───────────────▶ dropped ◀──────┘

``stop`` forgets what is in the queue, and what is tried. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.simulator.vllm.delivery import Delivery
from dapi.simulator.vllm.settings import SenderCounts, SenderSettings

# How often an honest node's vector differs, and how improbable a result of an honest one may be.
_HONEST_MISMATCHES = 0.1
_FRAUD_BELOW = 0.01


class ValidationJob(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of another participant's artifacts of the stage ``height``, which a node is to compute again.

    ``public_key`` is the participant's, in hex. Of ``n_total`` nonces those in ``mismatch_nonces`` turn out wrong.
    """

    height: int
    public_key: str
    n_total: int = 200
    mismatch_nonces: tuple[int, ...] = ()
    block_hash: str = "5F" * 32


def validated_body(job: ValidationJob, node_num: int, request_id: str) -> bytes:
    """Return a ``validated`` body, with the spaces and the order that the real one has."""
    n_mismatch = len(job.mismatch_nonces)
    p_value = _p_value(job.n_total, n_mismatch)
    body = {
        "request_id": request_id,
        "block_hash": job.block_hash,
        "block_height": job.height,
        "public_key": job.public_key,
        "node_id": node_num,
        "n_total": job.n_total,
        "n_mismatch": n_mismatch,
        "mismatch_nonces": job.mismatch_nonces,
        "p_value": p_value,
        "fraud_detected": p_value < _FRAUD_BELOW,
    }
    return json.dumps(body).encode()


def _p_value(n_total: int, n_mismatch: int) -> float:
    """Return how probable as many mismatches, or more, are with an honest participant: a binomial tail."""
    p = _HONEST_MISMATCHES
    fewer = (math.comb(n_total, k) * p**k * (1 - p) ** (n_total - k) for k in range(n_mismatch))
    return max(0.0, 1.0 - math.fsum(fewer))


class ResultSender:
    """Delivers results, some at once; while one waits for its next try it keeps its place among these.

    ``on_delivered`` is called with the body of each that is delivered.
    """

    log = Logger()

    def __init__(
        self, delivery: Delivery, url: str, settings: SenderSettings, on_delivered: Callable[[bytes], object]
    ) -> None:
        self.counts = SenderCounts()
        self._delivery = delivery
        self._url = url
        self._settings = settings
        self._on_delivered = on_delivered
        self._queue: deque[bytes] = deque()
        self._under_way: set[Deferred[None]] = set()

    def add(self, body: bytes) -> None:
        """Have a result delivered; where too many wait, the oldest is dropped."""
        self.counts.made += 1
        self._queue.append(body)
        if len(self._under_way) < self._settings.results_at_once:
            delivering = Deferred.fromCoroutine(self._deliver_all())
            self._under_way.add(delivering)
            delivering.addBoth(self._ended, delivering)
        elif len(self._queue) > self._settings.max_results:
            self._queue.popleft()
            self.counts.dropped += 1

    def stop(self) -> Deferred[None]:
        """Forget what is not delivered; fires when nothing is under way."""
        self._queue.clear()
        under_way = list(self._under_way)
        for delivering in under_way:
            delivering.cancel()
        self.counts.forget()
        return DeferredList(under_way).addCallback(lambda _: None)

    async def _deliver_all(self) -> None:
        """Deliver one after another, until none waits."""
        while self._queue:
            body = self._queue.popleft()
            outcome = await self._delivery.deliver(self._url, body, on_try=self._count_try)
            if outcome.is_delivered:
                self.counts.delivered += 1
                self._on_delivered(body)
            else:
                self.counts.dropped += 1

    def _count_try(self) -> None:
        self.counts.tries += 1

    def _ended(self, result: Any, delivering: Deferred[None]) -> None:
        self._under_way.discard(delivering)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("the simulated vLLM has a defect", result)
