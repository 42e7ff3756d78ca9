"""The recorder: what it puts into the outbox is what the chain wants, but for the creator."""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError
from dapi.messages import Kind, ProofBatch, Receipt, ValidatedBatch, Via, inference_pb2, varints
from dapi.messages.inference_pb2 import MsgSubmitPocBatch, MsgSubmitPocValidation
from dapi.outbox import cosmos_message_client
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.queries import OTHERS_NONCES
from dapi.poc.batch_handler import BatchHandler
from dapi.timing.pool_thread import PoolThread
from tests.unit.database.store_tools import StoreTestCase
from tests.unit.messages.test_addresses import ADDRESS, PUBLIC_KEY
from tests.unit.threadless import ThreadlessReactor

# From the transaction of the network's golden vector: bytes of its message, of which the first field is the creator.
CREATOR = bytes.fromhex("0a2c") + ADDRESS.encode()
GOLDEN = CREATOR + bytes.fromhex("10e8071a03622d31220307ac022a10000000000000e03f000000000000f43f32056e6f646531")


def generated() -> ProofBatch:
    return ProofBatch(PUBLIC_KEY, "AB12", 1000, [7, 300], [0.5, 1.25], 1)


def validated(public_key: str = PUBLIC_KEY, fraud_detected: bool = True) -> ValidatedBatch:
    return ValidatedBatch(
        public_key, "AB12", 1000, [7, 300], [0.5, 1.25], [0.5, 1.5], 1.4, 1e-7, 1, 0.25, fraud_detected, 0
    )


class KeptEntries(Outbox):
    """An outbox that keeps in memory what it is given."""

    def __init__(self) -> None:  # without a database
        self.entries: list[OutboxEntry] = []

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        self.entries.append(entry)
        return succeed(Receipt(entry.batch_id, 1))


class SlowOutbox(Outbox):
    """An outbox whose disk hangs."""

    def __init__(self) -> None:  # without a database
        self.pending: list[Deferred[Receipt]] = []

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        self.pending.append(Deferred())
        return self.pending[-1]


class CosmosMessageClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outbox = KeptEntries()
        self.client = CosmosMessageClient(self.outbox)

    def test_generated_batch(self) -> None:
        receipt = self.client.submit_poc_batch(generated(), batch_id="b-1", node_id="node1", via=Via.HTTP)
        self.assertEqual(self.successResultOf(receipt), Receipt("b-1", 1))
        (entry,) = self.outbox.entries
        self.assertEqual(
            entry, OutboxEntry("b-1", Kind.GENERATED, "node1", 1000, 2, Via.HTTP, GOLDEN.removeprefix(CREATOR))
        )

    def test_a_batch_whose_message_is_made_on_a_thread(self) -> None:
        reactor = ThreadlessReactor()
        reactor.holds_threads = True
        receipt = self.client.submit_poc_batch(
            generated(),
            batch_id="b-1",
            node_id="node1",
            via=Via.HTTP,
            has_others_nonces=True,
            thread=PoolThread(reactor),
        )
        self.assertEqual((reactor.deferred, self.outbox.entries), (["encoded_batch"], []))
        reactor.run_threads()
        self.assertEqual(self.successResultOf(receipt), Receipt("b-1", 1))
        message = GOLDEN.removeprefix(CREATOR)
        self.assertEqual(
            self.outbox.entries,
            [OutboxEntry("b-1", Kind.GENERATED, "node1", 1000, 2, Via.HTTP, message, OTHERS_NONCES)],
        )

    def test_creator_in_front_makes_it_whole(self) -> None:
        self.client.submit_poc_batch(generated(), batch_id="b-1", node_id="node1", via=Via.HTTP)
        whole = CREATOR + self.outbox.entries[0].message
        message = MsgSubmitPocBatch(
            creator=ADDRESS,
            poc_stage_start_block_height=1000,
            batch_id="b-1",
            nonces=[7, 300],
            dist=[0.5, 1.25],
            node_id="node1",
        )
        self.assertEqual(whole, message.SerializeToString())
        self.assertEqual(whole, GOLDEN)

    def test_message_of_a_large_batch_is_protobufs_own(self) -> None:
        """To the byte, however its numbers were encoded."""
        alike = list(range(1_500_003, 1_500_003 + 8 * 500, 8))
        for nonces in (alike, [*alike, 1], [*alike, 2**62], [-1] * 500):
            dist = [nonce / 3 for nonce in nonces]
            batch = ProofBatch(PUBLIC_KEY, "AB12", 1000, nonces, dist, 1)
            self.client.submit_poc_batch(batch, batch_id="b-1", node_id="node1", via=Via.HTTP)
            expected = MsgSubmitPocBatch(
                poc_stage_start_block_height=1000, batch_id="b-1", nonces=nonces, dist=dist, node_id="node1"
            )
            self.assertEqual(self.outbox.entries[-1].message, expected.SerializeToString())

    def test_message_of_a_batch_that_is_encoded_in_pieces_is_protobufs_own(self) -> None:
        self.patch(cosmos_message_client, "PIECE", 100)
        self.patch(varints, "PIECE", 100)
        self.test_message_of_a_large_batch_is_protobufs_own()

    def test_validation(self) -> None:
        receipt = self.client.submit_poc_validation(validated(), batch_id="v-1", node_id=None, via=Via.WEBSOCKET)
        self.assertEqual(self.successResultOf(receipt), Receipt(f"verdict-1000-{ADDRESS}", 1))
        (entry,) = self.outbox.entries
        self.assertEqual(
            (entry.batch_id, entry.kind, entry.node_id, entry.height, entry.nonces, entry.via),
            (f"verdict-1000-{ADDRESS}", Kind.VALIDATED, None, 1000, 2, Via.WEBSOCKET),
        )
        message = MsgSubmitPocValidation.FromString(CREATOR + entry.message)
        self.assertEqual(
            message,
            MsgSubmitPocValidation(
                creator=ADDRESS,
                participant_address=ADDRESS,
                poc_stage_start_block_height=1000,
                r_target=1.4,
                fraud_threshold=1e-7,
                n_invalid=1,
                probability_honest=0.25,
                fraud_detected=True,
            ),
        )
        self.assertEqual((len(message.nonces), len(message.dist), len(message.received_dist)), (0, 0, 0))

    def test_who_observes_verdicts_hears_of_each_that_is_kept(self) -> None:
        heard: list[tuple[str, int]] = []
        self.client.observe_verdicts(lambda public_key, height: heard.append((public_key, height)))
        self.client.submit_poc_validation(validated(), batch_id="v-1", node_id=None, via=Via.HTTP)
        refused = self.client.submit_poc_validation(validated("04aa"), batch_id="v-2", node_id=None, via=Via.HTTP)
        self.failureResultOf(refused, MessageError)
        self.assertEqual(heard, [(PUBLIC_KEY, 1000)])

    def test_validation_names_its_node_when_known(self) -> None:
        self.client.submit_poc_validation(validated(), batch_id="v-1", node_id="node1", via=Via.WEBSOCKET)
        self.assertEqual(self.outbox.entries[0].node_id, "node1")

    def test_verdict_on_what_is_no_key(self) -> None:
        refused = self.client.submit_poc_validation(validated("04aa"), batch_id="v-1", node_id=None, via=Via.HTTP)
        self.assertEqual(self.failureResultOf(refused, MessageError).value.field, "public_key")
        self.assertEqual(self.outbox.entries, [])

    def test_what_waits_for_the_disk_holds_no_batch(self) -> None:
        # The outbox bounds what waits by the bytes of its messages, and a verdict's have none of its lists.
        outbox = SlowOutbox()
        client = CosmosMessageClient(outbox)
        batches = generated(), validated()
        held = [sys.getrefcount(batch) for batch in batches]
        client.submit_poc_batch(batches[0], batch_id="b-1", node_id="node1", via=Via.HTTP)
        client.submit_poc_validation(batches[1], batch_id="v-1", node_id=None, via=Via.HTTP)
        self.assertEqual(len(outbox.pending), 2)
        self.assertEqual([sys.getrefcount(batch) for batch in batches], held)

    def test_names_of_our_own_in_the_descriptor_pool(self) -> None:
        self.assertEqual(inference_pb2.DESCRIPTOR.package, "dapi.inference")
        self.assertEqual(inference_pb2.DESCRIPTOR.name, "dapi/messages/inference.proto")


class ThroughTheHandlerTests(StoreTestCase):
    def test_a_batch_that_comes_both_ways_is_kept_once(self) -> None:
        outbox = Outbox(self.clock, self.open_database())
        handler = BatchHandler("node1", 1, CosmosMessageClient(outbox))
        first = handler.handle_generated_batch(generated(), Via.WEBSOCKET)
        second = handler.handle_generated_batch(generated(), Via.HTTP)
        self.assertEqual([self.clock.wait_for(first).seen, self.clock.wait_for(second).seen], [1, 2])
        verdict = handler.handle_validated_batch(validated(), Via.WEBSOCKET)
        other = handler.handle_validated_batch(validated(fraud_detected=False), Via.WEBSOCKET)
        self.assertEqual([self.clock.wait_for(verdict).seen, self.clock.wait_for(other).seen], [1, 2])
        self.assertEqual(
            self.look("SELECT kind, via, seen FROM unfinished ORDER BY seq"),
            [("generated", "websocket", 2), ("validated", "websocket", 2)],
        )
        self.assertEqual(handler.counts.doubled, 2)
