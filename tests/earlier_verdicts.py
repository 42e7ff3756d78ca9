"""Verdicts as earlier versions of dapi kept them: under the id of their content, so several on one participant."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from dapi.messages import Receipt, ValidatedBatch, Via, content_id
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox, OutboxEntry


class _UnderContentId(Outbox):
    """Puts an entry into another outbox, under the id of its content."""

    def __init__(self, outbox: Outbox, batch_id: str) -> None:
        self._outbox = outbox
        self._batch_id = batch_id

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        return self._outbox.put(msgspec.structs.replace(entry, batch_id=self._batch_id))


def put_earlier_verdict(outbox: Outbox, verdict: ValidatedBatch) -> Deferred[Receipt]:
    """Keep a verdict, beside others on the same participant."""
    batch_id = content_id(verdict)
    recorder = CosmosMessageClient(_UnderContentId(outbox, batch_id))
    return recorder.submit_poc_validation(verdict, batch_id=batch_id, node_id=None, via=Via.HTTP)
