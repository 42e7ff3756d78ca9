"""The recorder: makes the chain's messages of batches and puts them into the outbox."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail

from dapi.errors import MessageError
from dapi.messages import Kind, ProofBatch, Receipt, ValidatedBatch, Via
from dapi.messages.addresses import address_of
from dapi.messages.inference_pb2 import MsgSubmitPocBatch, MsgSubmitPocValidation
from dapi.outbox.outbox import Outbox, OutboxEntry


class CosmosMessageClient:
    """Records batches for the chain; it is the Recorder of a BatchHandler.

    The messages are kept **without their creator**, the participant, whose key need not be known yet when a batch
    comes. It is field 1 of both, and what comes first in canonical bytes: it is put in front of them for signing.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._on_verdict: Callable[[str, int], None] | None = None

    def observe_verdicts(self, observer: Callable[[str, int], None]) -> None:
        """Have ``observer`` called with public key (hex) and stage height of every verdict that was put on disk."""
        self._on_verdict = observer

    def submit_poc_batch(self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via) -> Deferred[Receipt]:
        """Keep a generated batch of the node named ``node_id``.

        Fires with the Receipt when it is on disk; fails with StoreError when it is not.
        """
        message = MsgSubmitPocBatch(
            poc_stage_start_block_height=batch.block_height,
            batch_id=batch_id,
            nonces=batch.nonces,
            dist=batch.dist,
            node_id=node_id,
        )
        return self._put(batch, Kind.GENERATED, message.SerializeToString(), batch_id, node_id, via)

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        """Keep a verdict on another participant's batch; ``node_id`` is None where no node is known.

        Its lists are not submitted: the network's own software clears them too, to keep the transaction small. Fires
        with the Receipt when it is on disk; fails with StoreError when it is not, and with MessageError when the
        batch's public key is none.
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
        )
        stored = self._put(batch, Kind.VALIDATED, message.SerializeToString(), batch_id, node_id, via)
        # Not the batch itself: its lists are in no bound of what waits for the disk.
        return stored.addCallback(self._tell_verdict, batch.public_key, batch.block_height)

    def _tell_verdict(self, receipt: Receipt, public_key: str, height: int) -> Receipt:
        if self._on_verdict is not None:
            self._on_verdict(public_key, height)
        return receipt

    def _put(
        self,
        batch: ProofBatch | ValidatedBatch,
        kind: Kind,
        message: bytes,
        batch_id: str,
        node_id: str | None,
        via: Via,
    ) -> Deferred[Receipt]:
        entry = OutboxEntry(
            batch_id=batch_id,
            kind=kind,
            node_id=node_id,
            height=batch.block_height,
            nonces=len(batch.nonces),
            via=via,
            message=message,
        )
        return self._outbox.put(entry)
