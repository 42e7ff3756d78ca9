"""Says when a node's batches begin to arrive in a stage, and at its end what came."""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.messages import ProofBatch, Receipt, Via
from dapi.timing.clock import unix_seconds
from dapi.timing.histogram import percentile
from dapi.timing.log_limits import OncePerMinute

_STAGES = 8
_TIMES = 1024
_RECENT_TIMES = 256


class DeliveryStatus(msgspec.Struct, frozen=True):
    """When the last batch came (unix seconds), and within how many ms half and 99 % of the last 256 could be acked."""

    last_at: float | None
    p50_ms: float | None
    p99_ms: float | None


@attrs.define
class _Stage:
    """What came in one stage; ``is_told`` when a line said that it began. The last 1024 ``seconds`` to the disk."""

    is_told: bool
    batches: int = 0
    nonces: int = 0
    doubled: int = 0
    by_websocket: int = 0
    by_http: int = 0
    seconds: deque[float] = attrs.field(factory=lambda: deque(maxlen=_TIMES))

    def add(self, receipt: Receipt, nonces: int, via: Via, seconds: float) -> None:
        """Count a delivery that is on disk."""
        if receipt.seen > 1:
            self.doubled += 1
        else:
            self.batches += 1
            self.nonces += nonces
        self.by_websocket += via is Via.WEBSOCKET
        self.by_http += via is Via.HTTP
        self.seconds.append(seconds)

    @property
    def p99_seconds(self) -> float:
        return percentile(sorted(self.seconds), 99)


class Deliveries:
    """Follows the batches that one node generated, stage by stage.

    A node may write any height into its batches: 8 stages are kept, and one beginning a minute is told.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, node_id: str) -> None:
        self._clock = clock
        self._node_id = node_id
        self._stages: OrderedDict[int, _Stage] = OrderedDict()
        self._ended_height = -1
        self._limit = OncePerMinute(clock)
        self._last_at: float | None = None
        # Made for the first one: empty, it is a good part of what a quiet node takes in memory.
        self._recent: deque[float] | None = None
        # Sorted when somebody asks, and not again before the next one comes.
        self._sorted: list[float] | None = None

    def status(self) -> DeliveryStatus:
        """Return when the last batch came, and how fast the last ones were on disk."""
        if self._last_at is None:
            return DeliveryStatus(None, None, None)
        if self._sorted is None:
            self._sorted = sorted(self._recent or ())
        p50, p99 = (
            (round(1000 * percentile(self._sorted, each), 1) for each in (50, 99)) if self._sorted else (None, None)
        )
        return DeliveryStatus(round(unix_seconds(self._clock, self._last_at), 1), p50, p99)

    def follow(self, batch: ProofBatch, via: Via, recorded: Deferred[Receipt]) -> None:
        """Count a batch that has come, once ``recorded`` fires, which keeps its result."""
        stage = self._stages.get(batch.block_height) or self._begin(batch.block_height, via)
        self._stages.move_to_end(batch.block_height)
        begun_at = self._last_at = self._clock.seconds()
        # Without the batch itself: a large one is not to be held until its message is on disk.
        nonces = len(batch.nonces)

        def count(receipt: Receipt) -> Receipt:
            seconds = self._clock.seconds() - begun_at
            stage.add(receipt, nonces, via, seconds)
            if self._recent is None:
                self._recent = deque(maxlen=_RECENT_TIMES)
            self._recent.append(seconds)
            self._sorted = None
            return receipt

        recorded.addCallback(count)

    def end(self) -> None:
        """Hear that the node is to generate no more: say what came."""
        while self._stages:
            self._end_oldest()

    def _begin(self, height: int, via: Via) -> _Stage:
        # What comes late is no beginning.
        is_told = height != self._ended_height and self._limit.is_due("begin")
        if is_told:
            text = "{node_id}: batches of stage {height} begin to arrive, {way}"
            self.log.info(text, node_id=self._node_id, height=height, way=_WAYS[via])
        if len(self._stages) == _STAGES:
            self._end_oldest()
        stage = self._stages[height] = _Stage(is_told)
        return stage

    def _end_oldest(self) -> None:
        height, stage = self._stages.popitem(last=False)
        say = partial(self.log.info, node_id=self._node_id, height=height, stage=stage)
        if stage.is_told:
            self._ended_height = height
        if stage.is_told and stage.seconds:
            say(
                "{node_id}: stage {height}: {stage.batches} batches with {stage.nonces} nonces are on disk, from "
                "{deliveries} deliveries: {stage.by_websocket} over the WebSocket, {stage.by_http} by HTTP, "
                "{stage.doubled} of them doubled; 99 % could be acknowledged within {milliseconds} ms",
                deliveries=stage.by_websocket + stage.by_http,
                milliseconds=round(1000 * stage.p99_seconds),
            )
        elif stage.is_told:
            say("{node_id}: stage {height}: no batch could be stored")


_WAYS = {Via.WEBSOCKET: "over the WebSocket", Via.HTTP: "by HTTP"}
