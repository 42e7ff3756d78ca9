"""A node's batches are recorded under its name, whichever way they come."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id
from dapi.poc.batch_handler import BatchHandler, WayCounts
from tests.batches import generated_batch, validated_batch
from tests.logs import log_of


class MemoryRecorder:
    """Keeps calls in a list, and answers with what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answer: Deferred[Receipt] | None = None
        self._seen: dict[str, int] = {}

    def submit_poc_batch(self, batch: ProofBatch, **details: Any) -> Deferred[Receipt]:
        return self._kept("generated", details)

    def submit_poc_validation(self, batch: ValidatedBatch, **details: Any) -> Deferred[Receipt]:
        return self._kept("validated", details)

    def _kept(self, kind: str, details: dict[str, Any]) -> Deferred[Receipt]:
        self.calls.append((kind, details))
        if self.answer is not None:
            return self.answer
        batch_id = details["batch_id"]
        self._seen[batch_id] = self._seen.get(batch_id, 0) + 1
        return succeed(Receipt(batch_id, self._seen[batch_id]))


class BatchHandlerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = MemoryRecorder()
        self.handler = BatchHandler("node-a", 1, self.recorder)
        self.bypasses = 0

    def _bypassed(self, _begun_at: float | None) -> None:
        self.bypasses += 1

    def test_generated_batch_goes_to_the_recorder_under_the_nodes_name(self) -> None:
        batch = generated_batch()
        receipt = self.successResultOf(self.handler.handle_generated_batch(batch, Via.HTTP))
        self.assertEqual(receipt, Receipt(content_id(batch), 1))
        details = {"batch_id": content_id(batch), "node_id": "node-a", "via": Via.HTTP, "has_others_nonces": False}
        details["thread"] = None
        self.assertEqual(self.recorder.calls, [("generated", details)])

    def test_nonces_of_other_nodes_are_told_apart(self) -> None:
        counts = {1000: {4}, 2000: {4, 5}}
        handler = BatchHandler("node-a", 1, self.recorder, node_counts=lambda height: counts.get(height, ()))
        for nonces, height, has_others in (
            ([1, 5, 401], 1000, False),
            ([1, 5, 402], 1000, True),
            ([2, 6], 1000, True),
            ([1, 6], 2000, False),
            ([1, 5, 6], 2000, True),
            ([2, 3], 3000, False),
        ):
            batch = generated_batch(nonces=nonces, dist=[0.5] * len(nonces), block_height=height)
            receipt = self.successResultOf(handler.handle_generated_batch(batch))
            # The node that they belong to may bring the same batch: it has another id.
            self.assertEqual(receipt.batch_id, f"{content_id(batch)}-1" if has_others else content_id(batch))
            self.assertIs(self.recorder.calls[-1][1]["has_others_nonces"], has_others)
        self.assertEqual(handler.counts.with_others_nonces, 3)

    def test_what_comes_is_counted_by_way_and_kind(self) -> None:
        self.handler.handle_generated_batch(generated_batch(), size=5)
        self.handler.handle_generated_batch(generated_batch(), Via.HTTP, size=6)
        self.handler.handle_validated_batch(validated_batch(), size=7)
        self.handler.handle_validated_batch(validated_batch(), size=8)
        self.assertEqual(self.handler.over_websocket, WayCounts(1, 5, 2, 15))
        self.assertEqual(self.handler.by_http, WayCounts(1, 6, 0, 0))

    def test_validated_batch_goes_to_the_recorder(self) -> None:
        batch = validated_batch()
        self.successResultOf(self.handler.handle_validated_batch(batch))
        self.assertEqual(
            self.recorder.calls,
            [("validated", {"batch_id": content_id(batch), "node_id": "node-a", "via": Via.WEBSOCKET})],
        )

    def test_nothing_fires_before_the_recorder_does(self) -> None:
        self.recorder.answer = Deferred()
        handled = self.handler.handle_generated_batch(generated_batch())
        self.assertNoResult(handled)
        self.assertEqual(self.handler.counts.stored, 0)
        self.recorder.answer.callback(Receipt("id", 1))
        self.assertEqual(self.handler.counts.stored, 1)
        self.assertEqual(self.successResultOf(handled), Receipt("id", 1))

    def test_failure_to_store_is_passed_on_and_counted(self) -> None:
        self.recorder.answer = fail(StoreBusyError("disk full"))
        self.failureResultOf(self.handler.handle_generated_batch(generated_batch()), StoreBusyError)
        self.assertEqual((self.handler.counts.not_stored, self.handler.counts.stored), (1, 0))

    def test_double_delivery_is_counted(self) -> None:
        for via in (Via.WEBSOCKET, Via.HTTP):
            self.successResultOf(self.handler.handle_generated_batch(generated_batch(), via))
        counts = self.handler.counts
        self.assertEqual((counts.generated, counts.doubled, counts.stored), (2, 1, 1))

    def test_connection_and_not_the_number_in_the_batch_names_the_node(self) -> None:
        self.successResultOf(self.handler.handle_generated_batch(generated_batch(node_id=9)))
        self.assertEqual(self.recorder.calls[0][1]["node_id"], "node-a")
        self.assertEqual(self.handler.counts.mismatched, 1)

    def test_a_node_that_says_another_number_is_told_of_once(self) -> None:
        log = log_of(self)
        for said in (9, 9, 9, 8, 1, 9):
            self.successResultOf(self.handler.handle_generated_batch(generated_batch(node_id=said)))
        lines = log.lines()
        self.assertEqual((len(lines), self.handler.counts.mismatched), (3, 5))
        self.assertEqual(
            lines[0],
            "node-a: batches say node number 9, on number 1's connection: taken for its own",
        )

    def test_number_in_a_verdict_is_no_mismatch(self) -> None:
        self.successResultOf(self.handler.handle_validated_batch(validated_batch(node_id=9)))
        self.assertEqual(self.handler.counts.mismatched, 0)

    def test_batch_without_a_nonce_is_acknowledged_and_not_submitted(self) -> None:
        receipt = self.successResultOf(self.handler.handle_generated_batch(generated_batch(nonces=[], dist=[])))
        self.assertEqual(receipt.seen, 0)
        empty_verdict = validated_batch(nonces=[], dist=[], received_dist=[])
        self.successResultOf(self.handler.handle_validated_batch(empty_verdict))
        self.assertEqual(self.recorder.calls, [])
        self.assertEqual(self.handler.counts.empty, 2)

    def test_verdict_with_nan_is_kept_and_counted(self) -> None:
        batch = validated_batch(dist=[float("nan"), 1.0])
        self.successResultOf(self.handler.handle_validated_batch(batch))
        self.assertEqual(len(self.recorder.calls), 1)
        self.assertEqual(self.handler.counts.with_nan, 1)

    def test_what_is_logged_of_a_verdict_with_nan_is_escaped_and_cut(self) -> None:
        log = log_of(self)
        batch = validated_batch(public_key="02\x1b[31m\n" + "a" * 5000, dist=[float("nan"), 1.0])
        self.successResultOf(self.handler.handle_validated_batch(batch))
        self.successResultOf(BatchHandler(None, None, self.recorder).handle_validated_batch(batch))
        for line, begin in zip(log.warnings(), ("node-a", "a node"), strict=True):
            self.assertTrue(line.startswith(f"{begin}: a verdict on 02?[31m?aaa"))
            self.assertTrue(line.isprintable())
            self.assertLess(len(line), 400)

    def test_handler_of_no_node_takes_verdicts_only(self) -> None:
        handler = BatchHandler(None, None, self.recorder)
        self.successResultOf(handler.handle_validated_batch(validated_batch(), Via.HTTP))
        self.assertIs(self.recorder.calls[0][1]["node_id"], None)
        self.assertRaises(ValueError, handler.handle_generated_batch, generated_batch(), Via.HTTP)

    def test_http_delivery_of_what_was_never_offered_is_a_bypass(self) -> None:
        self.handler.observe_bypass(self._bypassed)
        self.handler.handle_generated_batch(generated_batch(), Via.HTTP)
        self.assertEqual(self.bypasses, 1)

    def test_http_delivery_of_what_was_offered_is_none_though_it_was_not_stored_in_time(self) -> None:
        self.handler.observe_bypass(self._bypassed)
        self.recorder.answer = Deferred()
        self.handler.handle_generated_batch(generated_batch(), Via.WEBSOCKET)
        self.handler.handle_generated_batch(generated_batch(), Via.HTTP)
        self.assertEqual(self.bypasses, 0)

    def test_offers_remembered_are_bounded(self) -> None:
        self.handler.observe_bypass(self._bypassed)
        for nonce in range(65):
            self.handler.handle_generated_batch(generated_batch(nonces=[nonce], dist=[0.5]))
        self.handler.handle_generated_batch(generated_batch(nonces=[1], dist=[0.5]), Via.HTTP)
        self.assertEqual(self.bypasses, 0)
        self.handler.handle_generated_batch(generated_batch(nonces=[0], dist=[0.5]), Via.HTTP)
        self.assertEqual(self.bypasses, 1)
