"""Where both ways end: a node's batches become messages for the chain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id
from dapi.messages.columns import integers
from dapi.messages.printable import printable
from dapi.messages.remainders import all_leave
from dapi.poc.deliveries import Deliveries, DeliveryStatus
from dapi.poc.rehearsal import is_rehearsed
from dapi.timing.histogram import Histogram
from dapi.timing.observers import Observers
from dapi.timing.pool_thread import PoolThread

# A node offers one batch at a time over its WebSocket, and POSTs it 3 s later when no ack came (docs/protocol/node.md).
_OFFERS_REMEMBERED = 64


class Recorder(Protocol):
    """Keeps messages for the chain.

    Each Deferred fires with the Receipt when the message is on disk. It fails with StoreError when the message cannot
    be stored, with MessageError when no message can be made of the batch, and with QuotaError when the message is for
    nothing and too many such are kept of the node.
    """

    def submit_poc_batch(
        self,
        batch: ProofBatch,
        *,
        batch_id: str,
        node_id: str,
        via: Via,
        has_others_nonces: bool = False,
        thread: PoolThread | None = None,
    ) -> Deferred[Receipt]:
        """Keep a batch that the node ``node_id`` (its name) delivered; never send one that has others' nonces.

        What takes long with a large one is done on the ``thread``, where there is one.
        """

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        """Keep a verdict, one for a participant and a stage; ``node_id`` is None when the node is not known."""


class BatchCounts(msgspec.Struct):
    """How many batches a handler was given since it was made.

    Of them ``stored`` are on disk and had not been there before, ``doubled`` had been, ``not_stored`` could not be
    stored, ``empty`` have no nonces, ``mismatched`` carry another node's number, ``with_others_nonces`` have nonces
    that other nodes would generate, ``with_nan`` are verdicts with NaN among their distances, ``by_http`` came by HTTP.
    """

    generated: int = 0
    validated: int = 0
    stored: int = 0
    empty: int = 0
    doubled: int = 0
    mismatched: int = 0
    with_others_nonces: int = 0
    with_nan: int = 0
    not_stored: int = 0
    by_http: int = 0

    @property
    def by_way(self) -> tuple[int, int]:
        """How many came over the WebSocket, and how many by HTTP."""
        return self.generated + self.validated - self.by_http, self.by_http


class WayCounts(msgspec.Struct):
    """How many batches came one way, by kind, and the bytes that they came in."""

    generated: int = 0
    generated_bytes: int = 0
    validated: int = 0
    validated_bytes: int = 0


class AckTimes:
    """How long the messages of any number of nodes waited for their acknowledgements, by way."""

    def __init__(self) -> None:
        self.over_websocket = Histogram()
        self.by_http = Histogram()


class _Delivery(NamedTuple):
    """Which node delivers a batch, which way, and since when."""

    node_id: str
    via: Via
    begun_at: float | None


class BatchHandler:
    """Handles the batches of one node, whichever way they come.

    Whose batch it is follows from the connection, or from the token of a callback. ``node_id`` is the node's name and
    ``node_num`` its number; both are None for the handler of callbacks that name no node. ``node_counts`` tells by how
    many numbers the nonces of a stage are shared out, given its height; none when that is not known. ``deliveries``
    follows what the node generates, and logs it. ``over_websocket`` and ``by_http`` count what came which way;
    ``ack_times`` may be shared with other handlers.
    """

    log = Logger()

    def __init__(
        self,
        node_id: str | None,
        node_num: int | None,
        recorder: Recorder,
        deliveries: Deliveries | None = None,
        ack_times: AckTimes | None = None,
        node_counts: Callable[[int], Iterable[int]] = lambda height: (),
    ) -> None:
        self.node_id = node_id
        self.node_num = node_num
        self.counts = BatchCounts()
        self.over_websocket, self.by_http = WayCounts(), WayCounts()
        self.ack_times = ack_times or AckTimes()
        self._recorder = recorder
        self._node_counts = node_counts
        self._deliveries = deliveries
        self._last_num = node_num
        self._offered: OrderedDict[str, None] = OrderedDict()
        self._bypass_observers: Observers[[float | None]] = Observers()
        self._generated_observers: Observers[[ProofBatch]] = Observers()
        self._rehearsal: Callable[[ProofBatch, Via], object] | None = None

    @property
    def other_num(self) -> int | None:
        """The number that the node's last batch said, if it is another node's; None: it was its own."""
        return self._last_num if self._last_num != self.node_num else None

    def observe_generated(self, observer: Callable[[ProofBatch], object]) -> None:
        """Call ``observer`` with each generated batch that comes, before it is stored."""
        self._generated_observers.add(observer)

    def follow_rehearsal(self, observer: Callable[[ProofBatch, Via], object] | None) -> None:
        """Call ``observer`` alone with each batch of a rehearsal from now on; None: nobody.

        Whether anybody follows or not, such a batch is acknowledged and never stored, whenever it comes.
        """
        self._rehearsal = observer

    def observe_bypass(self, observer: Callable[[float | None], None]) -> None:
        """Call ``observer`` whenever a batch comes by HTTP that was never offered over the WebSocket.

        The node tries its WebSocket first, so this is the surest sign that it has forgotten the connection. It chose
        the way when it began to send: ``observer`` is called with that time, on the reactor's clock; None for now.
        """
        self._bypass_observers.add(observer)

    def deliveries(self) -> DeliveryStatus | None:
        """Return when the last batch came and how fast it was on disk; None where nobody follows that."""
        return self._deliveries.status() if self._deliveries is not None else None

    def end_stage(self) -> None:
        """Hear that the node is to generate no more."""
        if self._deliveries is not None:
            self._deliveries.end()

    def handle_generated_batch(
        self,
        batch: ProofBatch,
        via: Via = Via.WEBSOCKET,
        begun_at: float | None = None,
        *,
        size: int = 0,
        thread: PoolThread | None = None,
    ) -> Deferred[Receipt]:
        """Have a generated batch recorded; the Deferred is the Recorder's.

        ``begun_at`` is when the node began to send it, on the reactor's clock; None for now. It came in ``size`` bytes.
        What takes long with a large one is done on the ``thread``, where there is one.
        """
        if is_rehearsed(batch):
            return self._receipt_of_rehearsed(batch, via)
        self.counts.generated += 1
        way = self.by_http if via is Via.HTTP else self.over_websocket
        way.generated += 1
        way.generated_bytes += size
        if self.node_id is None:
            raise ValueError("a generated batch belongs to a node, and this handler has none")
        if batch.node_num != self.node_num:
            # The connection is the proof; the number in the batch is only what the node was told by an init.
            self.counts.mismatched += 1
            if batch.node_num != self._last_num:
                self.log.warn(
                    "{node_id}: batches say node number {said}, on number {node_num}'s connection: taken for its own",
                    node_id=self.node_id,
                    said=batch.node_num,
                    node_num=self.node_num,
                )
        self._last_num = batch.node_num
        self._generated_observers(batch)
        # By hand, a stage may be begun again with another count.
        counts = list(self._node_counts(batch.block_height))
        delivery = _Delivery(self.node_id, via, begun_at)
        if thread is not None:
            return Deferred.fromCoroutine(self._record_from(thread, batch, counts, delivery))
        return self._record(batch, content_id(batch), _has_others_nonces(batch, counts, self.node_num), delivery)

    async def _record_from(
        self, thread: PoolThread, batch: ProofBatch, counts: Sequence[int], delivery: _Delivery
    ) -> Receipt:
        batch_id = await thread.run(content_id, batch)
        has_others_nonces = await thread.run(_has_others_nonces, batch, counts, self.node_num)
        recorded = self._record(batch, batch_id, has_others_nonces, delivery, thread)
        # It takes more than its message, which waits for the disk.
        del batch
        return await recorded

    def _record(
        self,
        batch: ProofBatch,
        batch_id: str,
        has_others_nonces: bool,
        delivery: _Delivery,
        thread: PoolThread | None = None,
    ) -> Deferred[Receipt]:
        node_id, via, begun_at = delivery
        self._watch_for_bypass(batch_id, via, begun_at)
        if not batch.nonces:
            return self._receipt_of_empty(batch_id)
        if has_others_nonces:
            self.counts.with_others_nonces += 1
            # The node that they belong to may bring the same batch, which is sent.
            batch_id = f"{batch_id}-{self.node_num}"
        recorded = self._recorder.submit_poc_batch(
            batch, batch_id=batch_id, node_id=node_id, via=via, has_others_nonces=has_others_nonces, thread=thread
        )
        if self._deliveries is not None:
            self._deliveries.follow(batch, via, recorded)
        return self._count(recorded)

    def handle_validated_batch(
        self, batch: ValidatedBatch, via: Via = Via.WEBSOCKET, *, size: int = 0, thread: PoolThread | None = None
    ) -> Deferred[Receipt]:
        """Have a verdict on another participant's batch recorded; the Deferred is the Recorder's.

        It came in ``size`` bytes. What takes long with a large one is done on the ``thread``, where there is one.
        """
        self.counts.validated += 1
        way = self.by_http if via is Via.HTTP else self.over_websocket
        way.validated += 1
        way.validated_bytes += size
        if thread is not None:
            return Deferred.fromCoroutine(self._record_verdict_from(thread, batch, via))
        return self._record_verdict(batch, content_id(batch), batch.has_nan(), via)

    async def _record_verdict_from(self, thread: PoolThread, batch: ValidatedBatch, via: Via) -> Receipt:
        batch_id = await thread.run(content_id, batch)
        recorded = self._record_verdict(batch, batch_id, await thread.run(batch.has_nan), via)
        del batch
        return await recorded

    def _record_verdict(self, batch: ValidatedBatch, batch_id: str, has_nan: bool, via: Via) -> Deferred[Receipt]:
        self._watch_for_bypass(batch_id, via)
        if not batch.nonces:
            return self._receipt_of_empty(batch_id)
        if has_nan:
            self.counts.with_nan += 1
            self.log.warn(
                "{node_id}: a verdict on {public_key} came with NaN among its distances, which are not submitted",
                node_id=self.node_id or "a node",
                public_key=printable(batch.public_key),
            )
        return self._count(
            self._recorder.submit_poc_validation(batch, batch_id=batch_id, node_id=self.node_id, via=via)
        )

    def _receipt_of_rehearsed(self, batch: ProofBatch, via: Via) -> Deferred[Receipt]:
        if self._rehearsal is not None:
            self._rehearsal(batch, via)
        return succeed(Receipt(content_id(batch), 0))

    def _receipt_of_empty(self, batch_id: str) -> Deferred[Receipt]:
        self.counts.empty += 1
        return succeed(Receipt(batch_id, 0))

    def _count(self, recorded: Deferred[Receipt]) -> Deferred[Receipt]:
        def count(receipt: Receipt) -> Receipt:
            if receipt.seen > 1:
                self.counts.doubled += 1
            else:
                self.counts.stored += 1
            return receipt

        def count_failure(failure: object) -> object:
            self.counts.not_stored += 1
            return failure

        return recorded.addCallbacks(count, count_failure)  # type: ignore[arg-type]

    def _watch_for_bypass(self, batch_id: str, via: Via, begun_at: float | None = None) -> None:
        self.counts.by_http += via is Via.HTTP
        if via is Via.WEBSOCKET:
            # Remembered when it is offered, not when it is stored: a batch that the disk takes too long for comes by
            # HTTP next, and its connection is a good one.
            self._offered[batch_id] = None
            if len(self._offered) > _OFFERS_REMEMBERED:
                self._offered.popitem(last=False)
        elif batch_id not in self._offered:
            self._bypass_observers(begun_at)


def _has_others_nonces(batch: ProofBatch, counts: Sequence[int], own: int | None) -> bool:
    """Tell whether a node cannot have come to these nonces by itself (docs/protocol/node.md, 'Init request').

    ``counts`` are those by which the nonces of its stage may be shared out, ``own`` is the node's number.
    """
    if not counts or own is None or not batch.nonces:
        return False
    nonces = integers(batch.nonces)
    return not any(all_leave(nonces, count, own) for count in counts)
