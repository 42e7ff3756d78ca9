"""Where both ways end: a node's batches become messages for the chain, on disk before anybody is told so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id

_OFFERS_REMEMBERED = 1024


class Recorder(Protocol):
    """What keeps messages for the chain.

    Each call's Deferred fires with the Receipt when the message is on disk, and fails with StoreError when it is not,
    or with MessageError when no message can be made of the batch.
    """

    def submit_poc_batch(self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via) -> Deferred[Receipt]:
        """Keep a generated batch of the node ``node_id`` (its name)."""

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        """Keep a verdict; ``node_id`` is None where it is not known which node it came from."""


class BatchCounts(msgspec.Struct):
    """How many batches a handler was given since it was made, and what was special about them.

    ``stored`` counts those that are on disk and had not been there before.
    """

    generated: int = 0
    validated: int = 0
    stored: int = 0
    empty: int = 0
    doubled: int = 0
    mismatched: int = 0
    with_nan: int = 0
    not_stored: int = 0


class BatchHandler:
    """Handles the batches of one node, whichever way they come.

    The node is the one that the connection, or the number in a callback, says it is. ``node_id`` is its name and
    ``node_num`` its number; both are None for the handler of callbacks that name no node.
    """

    log = Logger()

    def __init__(self, node_id: str | None, node_num: int | None, recorder: Recorder) -> None:
        self.node_id = node_id
        self.node_num = node_num
        self.counts = BatchCounts()
        self._recorder = recorder
        self._said_num = node_num
        self._offered: OrderedDict[str, None] = OrderedDict()
        self._on_bypass: Callable[[float | None], None] | None = None

    def observe_bypass(self, observer: Callable[[float | None], None]) -> None:
        """Have ``observer`` called whenever a batch comes by HTTP that the WebSocket was never offered.

        The node walks its WebSocket first, so this is the surest sign of a connection that it has forgotten. It chose
        the way when it began to send, which is what ``observer`` is told.
        """
        self._on_bypass = observer

    def handle_generated_batch(
        self, batch: ProofBatch, via: Via = Via.WEBSOCKET, begun_at: float | None = None
    ) -> Deferred[Receipt]:
        """Record a generated batch; see Recorder for what the Deferred fires with.

        ``begun_at`` is when the node began to send it, on the reactor's clock; None for just now.
        """
        self.counts.generated += 1
        if self.node_id is None:
            raise ValueError("a generated batch belongs to a node, and this handler has none")
        if batch.node_num != self.node_num:
            # Over a WebSocket the connection is the proof; the number in the batch is only what the node was told.
            self.counts.mismatched += 1
            if batch.node_num != self._said_num:
                self.log.warn(
                    "{node_id}: batches say node number {said}, on number {node_num}'s connection: taken for its own",
                    node_id=self.node_id,
                    said=batch.node_num,
                    node_num=self.node_num,
                )
        self._said_num = batch.node_num
        batch_id = content_id(batch)
        self._watch_for_bypass(batch_id, via, begun_at)
        if not batch.nonces:
            return self._nothing_to_keep(batch_id)
        return self._counted(self._recorder.submit_poc_batch(batch, batch_id=batch_id, node_id=self.node_id, via=via))

    def handle_validated_batch(self, batch: ValidatedBatch, via: Via = Via.WEBSOCKET) -> Deferred[Receipt]:
        """Record a verdict on another participant's batch; see Recorder for what the Deferred fires with."""
        self.counts.validated += 1
        batch_id = content_id(batch)
        self._watch_for_bypass(batch_id, via)
        if not batch.nonces:
            return self._nothing_to_keep(batch_id)
        if batch.has_nan():
            self.counts.with_nan += 1
            self.log.warn(
                "{node_id}: a verdict on {public_key} came with NaN among its distances, which are not submitted",
                node_id=self.node_id,
                public_key=batch.public_key,
            )
        return self._counted(
            self._recorder.submit_poc_validation(batch, batch_id=batch_id, node_id=self.node_id, via=via)
        )

    def _nothing_to_keep(self, batch_id: str) -> Deferred[Receipt]:
        self.counts.empty += 1
        return succeed(Receipt(batch_id, 0))

    def _counted(self, recorded: Deferred[Receipt]) -> Deferred[Receipt]:
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
        if via is Via.WEBSOCKET:
            # Kept from the moment of the offer, not of the storing: a batch that the disk took too long for comes by
            # HTTP next, and its connection is a good one.
            self._offered[batch_id] = None
            if len(self._offered) > _OFFERS_REMEMBERED:
                self._offered.popitem(last=False)
        elif batch_id not in self._offered and self._on_bypass is not None:
            self._on_bypass(begun_at)
