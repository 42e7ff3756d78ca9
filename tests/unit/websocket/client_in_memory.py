"""A node's WebSocket in memory: a clock, Autobahn's server at the other end, and transports that can be held up."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from dapi.messages import ProofBatch, Receipt, ValidatedBatch
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.poc.websocket_client import WebSocketClient
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.timing.fair_share import FairShare
from tests.batches import generated_fields
from tests.unit.threadless import ThreadlessReactor
from tests.unit.websocket.links import Link, Peer, Tries


def message(message_id: str = "m-1", kind: str = "generated", **changes: Any) -> bytes:
    """A WebSocket message with a batch of its own for each id."""
    batch = generated_fields(block_hash=message_id) | changes
    return json.dumps({"type": kind, "batch": batch, "id": message_id}).encode()


class PendingRecorder:
    """A Recorder that keeps what it is given, and answers when a test says so."""

    def __init__(self) -> None:
        self.pending: list[tuple[str, Deferred[Receipt]]] = []
        self.taken: list[str] = []

    def submit_poc_batch(self, batch: ProofBatch, *, batch_id: str, **_details: Any) -> Deferred[Receipt]:
        return self._keep(batch.block_hash, batch_id)

    def submit_poc_validation(self, batch: ValidatedBatch, *, batch_id: str, **_details: Any) -> Deferred[Receipt]:
        return self._keep(batch.block_hash, batch_id)

    def _keep(self, name: str, batch_id: str) -> Deferred[Receipt]:
        stored: Deferred[Receipt] = Deferred()
        self.taken.append(name)
        self.pending.append((batch_id, stored))
        return stored

    def store(self, index: int = 0) -> None:
        batch_id, stored = self.pending.pop(index)
        stored.callback(Receipt(batch_id, 1))

    def fail(self, error: Exception, index: int = 0) -> None:
        self.pending.pop(index)[1].errback(error)


class Node(Peer):
    """The node's end, which is sent acknowledgements."""

    @property
    def acks(self) -> list[str]:
        return [json.loads(payload)["id"] for payload, _is_binary in self.received]


class ClientInMemory(Tries[WebSocketClient, Node]):
    """A WebSocketClient in memory, and the tries that it makes."""

    def __init__(self, *, url: str = "ws://127.0.0.1:8080", seed: int = 1, **settings: Any) -> None:
        super().__init__()
        self.recorder = PendingRecorder()
        self.handler = BatchHandler("node-a", 1, self.recorder)
        self.settings = WebSocketSettings(**settings)
        # What the processor did, as far as a test says so.
        self.cpu_seconds = 0.0
        # What is deferred to a thread is done at once, unless a test holds it.
        self.threads = ThreadlessReactor()
        self.share = FairShare(self.clock, lambda: self.cpu_seconds)
        self.client = WebSocketClient(
            self.clock,
            url,
            self.handler,
            node_id="node-a",
            random=Random(seed),
            settings=self.settings,
            account=lambda: self.share.of_node(1),
            large_batches=LargeBatches(self.threads, lambda: self.cpu_seconds),
        )

    def make_server(self) -> Node:
        return Node()


def open_client(**settings: Any) -> tuple[ClientInMemory, Link[Node]]:
    """A client with an open connection."""
    world = ClientInMemory(**settings)
    return world, world.open()
