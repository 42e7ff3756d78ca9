"""The Recorder: makes the chain's messages of batches and puts them into the outbox."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec
from twisted.internet.defer import Deferred, fail

from dapi.errors import MessageError, QuotaError
from dapi.messages import Kind, ProofBatch, Receipt, ValidatedBatch, Via
from dapi.messages.addresses import address_of
from dapi.messages.columns import doubles, integers, little_endian
from dapi.messages.content_id import run_id
from dapi.messages.inference_pb2 import MsgSubmitPocBatch, MsgSubmitPocBatchPacked, MsgSubmitPocValidation
from dapi.messages.varints import PIECE, packed_varints, pieces_of, varint
from dapi.outbox.comparison import Comparison
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.queries import ANY_RUN, NOT_HANDED_OUT, OTHERS_NONCES
from dapi.outbox.quota import NodeQuota
from dapi.timing.observers import Observers
from dapi.timing.pool_thread import PoolThread

# Of the fields 4 and 5, which have a length (docs/protocol/chain.md, 'Messages').
_NONCES_TAG: Final = b"\x22"
_DIST_TAG: Final = b"\x2a"


class CosmosMessageClient:
    """Records batches for the chain; it is the Recorder of a BatchHandler.

    The messages are kept **without their creator**, the participant, whose key need not be known yet when a batch
    comes. The creator is field 1 of both (docs/protocol/chain.md, 'Messages'): for signing it is put in front of them.

    With a ``comparison`` the chain's stages become known: before a batch is sent, it is then compared with its stage,
    and a verdict with the stage's height and with what was handed out; both are kept until the stage is known.
    With a ``quota`` a node of which too much waits has no more taken.
    """

    def __init__(self, outbox: Outbox, *, comparison: Comparison | None = None, quota: NodeQuota | None = None) -> None:
        self._outbox = outbox
        self._quota = quota
        self._comparison = comparison
        self._verdict_observers = Observers[[str, int]]()

    def observe_verdicts(self, observer: Callable[[str, int], None]) -> None:
        """Call ``observer`` with the public key (hex) and the stage height of every verdict that is put on disk.

        Those that nobody asked for are left out.
        """
        self._verdict_observers.add(observer)

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
        """Keep a generated batch of the node named ``node_id``; one that has others' nonces is never sent.

        With a ``thread`` the message is made there. Fires with the Receipt when it is on disk; fails with StoreError
        when it is not, and with QuotaError when it is of no stage and the node has enough of that on disk.
        """
        put = partial(self._put_batch, batch_id=batch_id, node_id=node_id, via=via, has_others_nonces=has_others_nonces)
        if thread is None:
            return put(batch, encoded_batch(batch, batch_id, node_id))
        return Deferred.fromCoroutine(self._encode_and_put(thread, batch, batch_id, node_id, put))

    async def _encode_and_put(
        self,
        thread: PoolThread,
        batch: ProofBatch,
        batch_id: str,
        node_id: str,
        put: Callable[[ProofBatch, bytes], Deferred[Receipt]],
    ) -> Receipt:
        stored = put(batch, await thread.run(encoded_batch, batch, batch_id, node_id))
        # It takes more than its message, which waits for the disk.
        del batch
        return await stored

    def _put_batch(
        self, batch: ProofBatch, message: bytes, *, batch_id: str, node_id: str, via: Via, has_others_nonces: bool
    ) -> Deferred[Receipt]:
        height, nonces = batch.block_height, len(batch.nonces)
        run = run_id(batch.block_hash, batch.public_key) if self._comparison is not None else ""
        if has_others_nonces:
            run = OTHERS_NONCES
        return self._put(OutboxEntry(batch_id, Kind.GENERATED, node_id, height, nonces, via, message, run))

    def _put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        try:
            if self._comparison is not None:
                self._comparison.admit(entry)
            if self._quota is not None:
                self._quota.admit(entry)
        except QuotaError as error:
            return fail(error)
        return self._outbox.put(entry)

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        """Keep a verdict on another participant's batch; ``node_id`` is None where no node is known.

        The chain takes one verdict on a participant in a stage, so it is kept under the id of both: another verdict on
        the same participant only counts as one that came again, whatever it says. Its lists are not submitted: the
        network's own software clears them too, to keep the transaction small. One that the node was not asked for is
        kept apart, under another id, so that it does not take the place of one that was. Fires with the Receipt when it
        is on disk; fails with StoreError when it is not, with MessageError when the batch's public key is none, and
        with QuotaError when the node has enough on disk that nobody asked for.
        """
        try:
            participant_address = address_of(batch.public_key)
        except MessageError as error:
            return fail(error)
        message = MsgSubmitPocValidation(
            participant_address=participant_address,
            poc_stage_start_block_height=batch.block_height,
            r_target=batch.r_target,
            fraud_threshold=batch.fraud_threshold,
            n_invalid=batch.n_invalid,
            probability_honest=batch.probability_honest,
            fraud_detected=batch.fraud_detected,
        ).SerializeToString()
        height, nonces = batch.block_height, len(batch.nonces)
        verdict_id = f"verdict-{height}-{participant_address}"
        entry = OutboxEntry(verdict_id, Kind.VALIDATED, node_id, height, nonces, via, message)
        # Without the batch itself: the bound of what is pending does not count its lists.
        if self._comparison is None:
            return self._put(entry).addCallback(self._report_verdict, batch.public_key, height)
        asked_for = self._comparison.is_asked_for(height, participant_address, node_id)
        return asked_for.addCallback(self._put_verdict, entry, batch.public_key)

    def _put_verdict(self, is_asked_for: bool, entry: OutboxEntry, public_key: str) -> Deferred[Receipt]:
        # Its public key is another participant's, and its block hash that of the batch that the node was given.
        if is_asked_for:
            asked_for = msgspec.structs.replace(entry, run=ANY_RUN)
            return self._put(asked_for).addCallback(self._report_verdict, public_key, entry.height)
        verdict_id = f"{entry.batch_id}-not-asked-for-{entry.node_id or 'by-http'}"
        return self._put(msgspec.structs.replace(entry, batch_id=verdict_id, run=NOT_HANDED_OUT))

    def _report_verdict(self, receipt: Receipt, public_key: str, height: int) -> Receipt:
        self._verdict_observers(public_key, height)
        return receipt


def encoded_batch(batch: ProofBatch, batch_id: str, node_id: str) -> bytes:
    """Return a batch as the chain's message without creator: both ways give the same bytes."""
    column = integers(batch.nonces)
    if len(column) > PIECE:
        return b"".join(_pieces(batch, column, batch_id, node_id))
    nonces = packed_varints(column)
    if nonces is None:
        return MsgSubmitPocBatch(
            poc_stage_start_block_height=batch.block_height,
            batch_id=batch_id,
            nonces=batch.nonces,
            dist=batch.dist,
            node_id=node_id,
        ).SerializeToString()
    return MsgSubmitPocBatchPacked(
        poc_stage_start_block_height=batch.block_height,
        batch_id=batch_id,
        nonces=nonces,
        dist=little_endian(doubles(batch.dist)).tobytes(),
        node_id=node_id,
    ).SerializeToString()


def _pieces(
    batch: ProofBatch, column: array[int], batch_id: str, node_id: str
) -> Iterator[bytes | array[int] | array[float]]:
    """Return what the message of a large batch consists of: protobuf would hold its lists two times more."""
    begin = MsgSubmitPocBatchPacked(poc_stage_start_block_height=batch.block_height, batch_id=batch_id)
    yield begin.SerializeToString()
    nonces = list(pieces_of(column))
    yield _NONCES_TAG + varint(sum(map(len, nonces)))
    yield from nonces
    dist = little_endian(doubles(batch.dist))
    yield _DIST_TAG + varint(len(dist) * dist.itemsize)
    yield dist
    yield MsgSubmitPocBatchPacked(node_id=node_id).SerializeToString()
