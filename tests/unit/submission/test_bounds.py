"""However long it runs, and however much comes in, what is held in memory is bounded."""

from __future__ import annotations

from dapi.chain.rpc_answers import TxResult
from dapi.messages import Via, content_id
from dapi.submission.settings import SubmitterSettings
from tests.batches import generated_batch
from tests.growth import sizes
from tests.unit.submission.submitter_case import SubmitterTestCase

MIB = 1024 * 1024


class BoundsTests(SubmitterTestCase):
    next_nonce = 0

    def held(self) -> dict[str, int]:
        """What is held, but for what the test itself makes the chain remember."""
        return sizes(self.submitter, self.submissions, self.outbox, self.recorder, self.database)

    def put(self, number: int) -> None:
        """Record many batches, in one commit."""
        for nonce in range(number):
            self.next_nonce += 1
            batch = generated_batch(block_height=10, nonces=[self.next_nonce], dist=[0.5])
            self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id=f"n{nonce}", via=Via.HTTP)
        self.settle()

    def include_all(self, code: int, codespace: str, height: int) -> None:
        """Make a block of all transactions that are in none yet."""
        log = "failed to execute message; message index: 0: no"
        for tx_hash in self.chain.sent:
            self.chain.results.setdefault(tx_hash, TxResult(tx_hash, height, code, codespace, log))
        self.block(height)

    def test_nothing_grows_with_what_is_finished(self) -> None:
        heights = iter(range(11, 1000))
        held: list[dict[str, int]] = []
        for _ in range(3):
            for number, code in enumerate((0, 0, 1145, 0, 30, 0, 0)):
                self.put(number + 1)
                self.include_all(code, {1145: "inference", 30: "sdk"}.get(code, ""), next(heights))
            for _ in range(4):
                self.include_all(0, "", next(heights))
            self.assertEqual(self.submitter.status()["transactions_in_flight"], 0)
            held.append(self.held())
        self.assertEqual(held[1], held[0])
        self.assertEqual(held[2], held[0])
        counts = self.counts()
        self.assertGreater(counts["confirmed"], 30)
        self.assertGreater(counts["failed"], 0)

    def test_nothing_grows_with_what_waits_for_a_chain_in_trouble(self) -> None:
        self.watcher.problem = "halted"
        self.put(10)
        held = self.held()
        self.put(2000)
        self.assertEqual(self.held(), held)
        self.assertEqual(self.counts(), {"stored": 2010})

    def test_what_is_in_flight_is_bounded_while_no_block_takes_it(self) -> None:
        most = self.submitter.status()["max_transactions"]
        self.assertLessEqual(most, SubmitterSettings().max_in_flight)
        for _ in range(most + 5):
            self.put(1)
        self.assertEqual(len(self.chain.sent), most)
        self.block(11)
        held = self.held()
        self.put(500)
        self.block(12)
        self.pass_time(10)
        self.assertEqual(self.held(), held)
        self.assertEqual(len(set(self.chain.sent)), most)
