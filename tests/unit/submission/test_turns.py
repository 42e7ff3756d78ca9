"""Large transactions are offered in turns of the reactor of their own, so that nothing waits long for its turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from dapi.chain.rpc_answers import Broadcast
from dapi.messages import Via, content_id
from tests.batches import generated_batch
from tests.unit.submission.submitter_case import SubmitterTestCase

NONCES = 8000


class TurnTests(SubmitterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.turn = 0
        self.offered: list[tuple[int, int]] = []
        call_later, broadcast = self.clock.callLater, self.chain.broadcast_tx_sync

        def call_in_a_turn(delay: float, call: Callable[..., object], *args: Any, **options: Any) -> IDelayedCall:
            def run() -> None:
                self.turn += 1
                call(*args, **options)

            return call_later(delay, run)

        def offer(raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
            self.offered.append((self.turn, len(raw)))
            return broadcast(raw, turn=turn)

        self.patch(self.clock, "callLater", call_in_a_turn)
        self.patch(self.chain, "broadcast_tx_sync", offer)

    def record_large(self, number: int) -> None:
        for first in range(0, number * NONCES, NONCES):
            nonces = list(range(10**6 + first, 10**6 + first + NONCES))
            batch = generated_batch(block_height=10, nonces=nonces, dist=[0.5] * NONCES)
            self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id="n", via=Via.HTTP)
        self.settle()

    def test_one_large_transaction_in_a_turn(self) -> None:
        self.record_large(24)
        self.assertGreaterEqual(len(self.offered), 3)
        self.assertEqual(len({turn for turn, _ in self.offered}), len(self.offered))
        self.assertGreater(min(size for _, size in self.offered), 2**16)
        self.block(11)
        for tx_hash in self.chain.sent:
            self.include(tx_hash, 11)
        self.block(12)
        self.assertEqual(self.counts(), {"confirmed": 24})
