"""The callback routes, asked over an in-memory HTTP connection."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from dapi.broker.nodes import Node
from dapi.errors import NotReadyError, QuotaError, StoreBrokenError, StoreBusyError, UnknownNodeError
from dapi.http.site import JsonSite
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id, decode_generated, decode_validated
from dapi.poc.batch_handler import BatchHandler, WayCounts
from dapi.server.callbacks import CallbackCounts, Callbacks
from tests.batches import generated_fields, validated_fields
from tests.doors import Nodes, make_door, started_tokens
from tests.logs import log_of
from tests.nodes import node_config
from tests.unit.server.resource_client import ResourceClient

BASES = ("/v1/poc-batches", "/mlnode/v1/poc-batches")


class FakeRecorder:
    """Keeps what it is given; the test decides when it is on disk."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, str, str | None, Via]] = []
        self.storing: list[Deferred[Receipt]] = []

    def submit_poc_batch(
        self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via, **_details: Any
    ) -> Deferred[Receipt]:
        return self._keep(batch, batch_id, node_id, via)

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        return self._keep(batch, batch_id, node_id, via)

    def _keep(self, batch: Any, batch_id: str, node_id: str | None, via: Via) -> Deferred[Receipt]:
        self.given.append((batch, batch_id, node_id, via))
        self.storing.append(Deferred())
        return self.storing[-1]

    def stored(self) -> None:
        self.storing[-1].callback(Receipt(self.given[-1][1], 1))


class CallbackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recorder = FakeRecorder()
        self.node_handler = BatchHandler("node1", 1, self.recorder)
        self.error: Exception | None = None
        self.nodes = Nodes(Node(node_config(), 1))
        self.tokens = started_tokens(self.mktemp())
        self.use_door(takes_plain=True)

    def use_door(self, *, takes_plain: bool) -> None:
        self.door = make_door(self.clock, self.nodes, self.tokens, takes_plain=takes_plain)
        unnamed_handler = BatchHandler(None, None, self.recorder)
        self.callbacks = Callbacks(self.clock, self.door, self.handler_by_num, unnamed_handler)
        self.http = ResourceClient(self, self.callbacks.resource())

    def handler_by_num(self, num: int) -> BatchHandler:
        if self.error is not None:
            raise self.error
        if num != 1:
            raise UnknownNodeError(f"no node has the number {num}")
        return self.node_handler

    def post(self, path: str, body: Any, method: str = "POST") -> Deferred[IResponse]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.ask(method, f"http://127.0.0.1{path}", data, {})

    def answered(self, asked: Deferred[IResponse]) -> tuple[IResponse, bytes]:
        return self.http.answered(asked)

    def refused(self, asked: Deferred[IResponse], status: int) -> str:
        response, body = self.answered(asked)
        self.assertEqual(response.code, status, body)
        self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/json"])
        self.assertEqual(response.headers.hasHeader("retry-after"), status == 503)
        decoded = json.loads(body)
        self.assertEqual(list(decoded), ["error"])
        return str(decoded["error"])

    def test_generated(self) -> None:
        for base in BASES:
            waiting = self.post(f"{base}/generated", generated_fields())
            self.assertNoResult(waiting)
            self.recorder.stored()
            response, body = self.answered(waiting)
            self.assertEqual((response.code, body), (200, b""))
            self.assertEqual(response.length, 0)
            batch = decode_generated(json.dumps(generated_fields()).encode())
            self.assertEqual(self.recorder.given[-1], (batch, content_id(batch), "node1", Via.HTTP))
        self.assertEqual(self.callbacks.counts, CallbackCounts(generated=2))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        size = len(json.dumps(generated_fields()))
        self.assertEqual(self.node_handler.by_http, WayCounts(generated=2, generated_bytes=2 * size))

    def test_the_time_to_the_answer_is_measured(self) -> None:
        times = BatchHandler(None, None, self.recorder)
        self.http = ResourceClient(self, Callbacks(self.clock, self.door, self.handler_by_num, times).resource())
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.http.flush()
        self.clock.advance(3)
        self.recorder.stored()
        self.answered(waiting)
        self.refused(self.post("/v1/poc-batches/generated", {}), 400)
        self.assertEqual((times.ack_times.by_http.sum, times.ack_times.by_http.cumulative()[-1]), (3, 1))

    def test_validated_needs_no_node(self) -> None:
        self.error = NotReadyError("the nodes are not loaded yet")
        for base in BASES:
            waiting = self.post(f"{base}/validated", validated_fields())
            self.assertNoResult(waiting)
            self.recorder.stored()
            response, body = self.answered(waiting)
            self.assertEqual((response.code, body), (200, b""))
            batch = decode_validated(json.dumps(validated_fields()).encode())
            self.assertEqual(self.recorder.given[-1], (batch, content_id(batch), None, Via.HTTP))
        self.assertEqual(self.callbacks.counts, CallbackCounts(validated=2))

    def test_a_bypass_is_told_with_when_its_upload_began(self) -> None:
        begun: list[float | None] = []
        self.node_handler.observe_bypass(begun.append)
        peer = IPv4Address("TCP", "127.0.0.1", 40000)
        channel: Any = JsonSite(self.clock, self.callbacks.resource()).buildProtocol(peer)
        channel.makeConnection(StringTransport(peerAddress=peer))
        body = json.dumps(generated_fields()).encode()
        self.clock.advance(9)
        channel.dataReceived(b"POST /v1/poc-batches/generated HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        self.clock.advance(20)
        channel.dataReceived(body)
        self.assertEqual(begun, [9])

    def test_a_token_names_the_node_of_both_kinds(self) -> None:
        self.use_door(takes_plain=False)
        token = self.tokens.token(1, 1)
        for base in BASES:
            for kind, fields in (("generated", generated_fields()), ("validated", validated_fields())):
                waiting = self.post(f"{base}/{token}/{kind}", fields)
                self.recorder.stored()
                self.assertEqual(self.answered(waiting)[0].code, 200)
                self.assertEqual(self.recorder.given[-1][2:], ("node1", Via.HTTP))
        self.assertEqual(self.callbacks.counts, CallbackCounts(generated=2, validated=2))

    def test_without_a_right_token_nothing_is_stored(self) -> None:
        self.use_door(takes_plain=False)
        for token in ("", "/x", f"/{self.tokens.token(1, 2)}", f"/{self.tokens.token(1, 1)[:-1]}"):
            for kind, fields in (("generated", generated_fields()), ("validated", validated_fields())):
                message = self.refused(self.post(f"/v1/poc-batches{token}/{kind}", fields), 403)
                self.assertEqual(message, "the path has no right callback token: a node is told its own with its init")
        self.assertEqual(self.recorder.given, [])
        self.assertEqual(self.callbacks.counts, CallbackCounts(forbidden=8))

    def test_a_node_that_was_told_no_token_proves_nothing_for_another(self) -> None:
        self.nodes = Nodes(
            Node(node_config(), 1, old_token_num=0), Node(node_config("node2"), 2), Node(node_config("node3"), 3)
        )
        self.use_door(takes_plain=False)
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.recorder.stored()
        self.assertEqual(self.answered(waiting)[0].code, 200)
        self.refused(self.post("/v1/poc-batches/generated", generated_fields(node_id=2)), 403)
        self.assertEqual(self.callbacks.counts, CallbackCounts(generated=1, forbidden=1))

    def test_no_answer_quotes_a_token(self) -> None:
        token = self.tokens.token(1, 1)
        for path in (f"/v1/poc-batches/{token}/other", f"/v1/{token}"):
            self.assertNotIn(token[-43:], self.refused(self.post(path, b""), 404))

    def test_trailing_slash(self) -> None:
        waiting = self.post("/v1/poc-batches/generated/", generated_fields())
        self.recorder.stored()
        self.assertEqual(self.answered(waiting)[0].code, 200)

    def test_batch_without_nonces(self) -> None:
        response, body = self.answered(self.post("/v1/poc-batches/generated", generated_fields(nonces=[], dist=[])))
        self.assertEqual((response.code, body), (200, b""))
        self.assertEqual(self.recorder.given, [])

    def test_unknown_number(self) -> None:
        message = self.refused(self.post("/v1/poc-batches/generated", generated_fields(node_id=7)), 404)
        self.assertEqual(message, "no node has the number 7")
        self.assertEqual(self.callbacks.counts, CallbackCounts(unknown_node=1))
        self.assertEqual(self.recorder.given, [])

    def test_nodes_not_loaded(self) -> None:
        self.error = NotReadyError("the nodes are not loaded yet")
        message = self.refused(self.post("/v1/poc-batches/generated", generated_fields()), 503)
        self.assertEqual(message, "the nodes are not loaded yet")
        self.assertEqual(self.callbacks.counts, CallbackCounts(store_busy=1))

    def test_bad_message(self) -> None:
        bad = {
            b"": "$",
            b"{": "$",
            b"[]": "$",
            b"\xff": "$",
            json.dumps(generated_fields(node_id=True)).encode(): "$.node_id",
            json.dumps(generated_fields(dist=[0.5])).encode(): "$.dist",
            json.dumps(generated_fields(dist=[0.5, float("nan")])).encode(): "$.dist[1]",
            json.dumps(generated_fields(nonces=[1, 2**63])).encode(): "$.nonces[1]",
            json.dumps({"node_id": 1}).encode(): "$.public_key",
        }
        for body, field in bad.items():
            message = self.refused(self.post("/v1/poc-batches/generated", body), 400)
            self.assertTrue(message.startswith(f"{field}: "), message)
        message = self.refused(self.post("/v1/poc-batches/validated", validated_fields(n_invalid="x")), 400)
        self.assertTrue(message.startswith("$.n_invalid: "), message)
        self.assertEqual(self.callbacks.counts, CallbackCounts(bad_message=len(bad) + 1))
        self.assertEqual(self.recorder.given, [])

    def test_store_busy(self) -> None:
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.recorder.storing[-1].errback(StoreBusyError("the disk is full"))
        self.assertEqual(self.refused(waiting, 503), "the disk is full")
        self.assertEqual(self.callbacks.counts, CallbackCounts(store_busy=1))

    def test_store_broken(self) -> None:
        waiting = self.post("/v1/poc-batches/validated", validated_fields())
        self.recorder.storing[-1].errback(StoreBrokenError("fsync failed"))
        self.assertEqual(self.refused(waiting, 503), "fsync failed")
        self.assertEqual(self.callbacks.counts, CallbackCounts(store_broken=1))

    def test_enough_that_no_stage_is_for(self) -> None:
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.recorder.storing[-1].errback(QuotaError("1000 messages of node1 are kept"))
        self.assertEqual(self.refused(waiting, 429), "1000 messages of node1 are kept")
        self.assertEqual(self.callbacks.counts, CallbackCounts(over_quota=1))

    def test_defect(self) -> None:
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.recorder.storing[-1].errback(RuntimeError("a secret"))
        self.assertEqual(self.refused(waiting, 500), "internal error: see the log of dapi")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_slow_store(self) -> None:
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.clock.advance(24.9)
        self.http.flush()
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.refused(waiting, 503)
        self.assertEqual(self.callbacks.counts, CallbackCounts(late=1))
        storing = self.recorder.storing[-1]
        self.assertFalse(storing.called)
        self.recorder.stored()
        self.assertNotIsInstance(storing.result, Failure)

    def test_slow_store_that_fails(self) -> None:
        waiting = self.post("/v1/poc-batches/generated", generated_fields())
        self.clock.advance(25)
        self.refused(waiting, 503)
        self.recorder.storing[-1].errback(StoreBusyError("the disk is full"))
        self.assertIsNone(self.recorder.storing[-1].result)

    def test_wrong_method_and_path(self) -> None:
        for method in ("GET", "PUT", "DELETE"):
            self.refused(self.post("/v1/poc-batches/generated", b"", method), 405)
        self.refused(self.post("/v1/poc-batches/other", b""), 404)
        self.refused(self.post("/", b""), 404)

    def test_repeated_refusals_are_told_once_a_minute(self) -> None:
        log = log_of(self)
        for number in (7, 8, 7, 8):
            self.refused(self.post("/v1/poc-batches/generated", generated_fields(node_id=number)), 404)
        self.refused(self.post("/v1/poc-batches/generated", b"{"), 400)
        self.clock.advance(60)
        self.refused(self.post("/v1/poc-batches/generated", generated_fields(node_id=9)), 404)
        refusals = log.warnings("not taken")
        self.assertEqual(len(refusals), 3, refusals)
        self.assertIn("7", refusals[0])
        self.assertIn("9", refusals[2])
