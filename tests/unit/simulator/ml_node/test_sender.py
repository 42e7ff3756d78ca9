"""The sender of a simulated node, by the clock, with the times that were measured on a real one."""

import json
import random
import uuid
from typing import Any, cast

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from dapi.simulator.ml_node.ledger import Ledger
from dapi.simulator.ml_node.sender import Sender
from dapi.simulator.ml_node.settings import MLNodeSettings
from tests.unit.simulator.ml_node.test_run import running


class Connection:
    """Keeps what it is offered."""

    number = 7
    is_writable = True

    def __init__(self) -> None:
        self.offered: list[dict[str, Any]] = []

    def offer(self, payload: bytes) -> None:
        self.offered.append(json.loads(payload))


class Callbacks(Resource):
    """Answers each callback with ``status``, or never; redirects those to a path of ``redirects``."""

    isLeaf = True
    status: int | None = 200

    def __init__(self) -> None:
        super().__init__()
        self.redirects: dict[str, tuple[int, str]] = {}
        self.calls: list[tuple[str, str, int]] = []

    def render(self, request: Request) -> Any:
        assert request.content is not None
        path = request.path.decode()
        self.calls.append((request.method.decode(), path, len(request.content.read())))
        if path in self.redirects:
            status, location = self.redirects[path]
            request.setResponseCode(status)
            request.setHeader("location", location)
            return b""
        if self.status is None:
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        return b""


class SenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.settings = MLNodeSettings(nonces_per_batch=3)
        self.ledger = Ledger()
        self.callbacks = Callbacks()
        self.connection = Connection()
        self.start()

    def start(self) -> None:
        self.run_ = running(self.clock, self.settings)
        self.sender = Sender(
            self.clock,
            random.Random(1),
            self.run_,
            name="node1",
            settings=self.settings,
            ledger=self.ledger,
            http=cast(HTTPClient, StubTreq(self.callbacks)),
        )
        self.sender.start()

    def connect(self) -> None:
        self.run_.attach(self.connection)

    def tearDown(self) -> None:
        self.sender.abandon()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_walks_every_five_seconds(self) -> None:
        self.clock.advance(4.9)
        self.assertEqual(self.ledger.counts["made"], 0)
        self.clock.advance(0.1)
        self.assertEqual(self.ledger.counts["http"], 1)
        self.clock.pump([5, 5])
        self.assertEqual(self.ledger.counts["http"], 3)

    def test_an_ack_is_waited_for_three_seconds(self) -> None:
        self.connect()
        self.clock.advance(5)
        self.assertEqual(len(self.connection.offered), 1)
        self.clock.advance(2.9)
        self.assertEqual(self.ledger.counts["delivered"], 0)
        self.clock.advance(0.1)
        self.assertEqual(self.ledger.counts["doubled"], 1)
        self.assertEqual(self.ledger.batches[0].attempts[0].outcome, "no ack")

    def test_an_ack_ends_it(self) -> None:
        self.connect()
        self.clock.advance(5)
        message = self.connection.offered[0]
        self.assertEqual(uuid.UUID(message["id"]).version, 4)
        self.clock.advance(2.9)
        self.sender.acknowledge(message["id"], 7)
        self.assertEqual(self.ledger.batches[0].delivered_via, "websocket")
        self.sender.acknowledge(message["id"], 7)
        self.assertEqual(list(self.ledger.stray_acks), [message["id"]])

    def test_another_ids_ack_does_not(self) -> None:
        self.connect()
        self.clock.advance(5)
        self.sender.acknowledge(str(uuid.UUID(int=1)), 7)
        self.clock.advance(3)
        self.assertEqual(self.ledger.batches[0].delivered_via, "http")

    def test_a_flag_that_was_reset_sends_it_by_http_at_once(self) -> None:
        self.connect()
        self.run_.detach(Connection())
        self.clock.advance(5)
        self.assertEqual(self.connection.offered, [])
        self.assertEqual(self.ledger.counts["http"], 1)

    def test_every_walk_tries_all_of_it_again_the_websocket_first(self) -> None:
        self.callbacks.status = 500
        self.connect()
        self.clock.pump([5, 3])
        self.settings.batches_per_walk = 0
        for _ in range(3):
            self.clock.pump([5, 3])
        (entry,) = self.ledger.batches
        self.assertEqual([attempt.via for attempt in entry.attempts], ["websocket", "http"] * 4)
        self.assertEqual(len({message["id"] for message in self.connection.offered}), 4)
        self.callbacks.status = 299
        self.clock.pump([5, 3])
        self.assertEqual(entry.delivered_via, "http")

    def test_any_status_below_400_drops_the_batch(self) -> None:
        """(docs/protocol/node.md, 'How a node delivers')"""
        for status, outcome in (
            (200, "accepted"),
            (299, "accepted"),
            (300, "accepted"),
            (304, "accepted"),
            (399, "accepted"),
        ):
            self.callbacks.status = status
            self.clock.advance(5)
            self.assertEqual(self.ledger.batches[-1].attempts[0].outcome, outcome, status)
        self.callbacks.status = 400
        self.clock.advance(5)
        self.assertEqual(self.ledger.batches[-1].attempts[0].outcome, "refused")

    def test_a_redirect_is_followed_as_a_get_whose_answer_decides(self) -> None:
        """(docs/protocol/node.md, 'How a node delivers')"""
        for status in (301, 302, 303):
            self.callbacks.redirects = {"/v1/poc-batches/generated": (status, "/elsewhere")}
            self.callbacks.calls.clear()
            self.clock.advance(5)
            (posted, followed) = self.callbacks.calls
            self.assertEqual(posted[:2], ("POST", "/v1/poc-batches/generated"))
            self.assertEqual(followed, ("GET", "/elsewhere", 0))
            self.assertEqual(self.ledger.batches[-1].delivered_via, "http")
        self.callbacks.status = 404
        self.clock.advance(5)
        self.assertIsNone(self.ledger.batches[-1].delivered_via)

    def test_307_and_308_are_followed_by_another_post(self) -> None:
        """(docs/protocol/node.md, 'How a node delivers')"""
        for status in (307, 308):
            self.callbacks.redirects = {"/v1/poc-batches/generated": (status, "http://127.0.0.1:1/elsewhere")}
            self.callbacks.calls.clear()
            self.clock.advance(5)
            (posted, followed) = self.callbacks.calls
            self.assertEqual(followed, ("POST", "/elsewhere", posted[2]))
            self.assertEqual(self.ledger.batches[-1].delivered_via, "http")

    def test_redirects_without_end_deliver_nothing(self) -> None:
        self.callbacks.redirects = {"/v1/poc-batches/generated": (307, "/v1/poc-batches/generated")}
        self.clock.advance(5)
        self.assertEqual(len(self.callbacks.calls), 30)
        self.assertEqual(self.ledger.batches[0].attempts[0].outcome, "failed")

    def test_an_http_call_has_no_time_limit(self) -> None:
        self.callbacks.status = None
        self.clock.advance(5)
        self.clock.pump([60] * 60)
        self.assertEqual(self.ledger.counts["made"], 1)
        finished = Deferred.fromCoroutine(self.sender.finish_posting())
        self.clock.advance(4.9)
        self.assertNoResult(finished)
        self.clock.advance(0.1)
        self.successResultOf(finished)
        self.sender.abandon()
        self.assertEqual(self.ledger.counts["lost"], 1)

    def test_several_batches_a_walk_go_one_after_the_other(self) -> None:
        self.settings.batches_per_walk = 3
        self.connect()
        self.clock.advance(5)
        self.assertEqual(len(self.connection.offered), 1)
        self.sender.acknowledge(self.connection.offered[0]["id"], 7)
        self.assertEqual(len(self.connection.offered), 2)
        self.clock.advance(3)
        self.assertEqual(len(self.connection.offered), 3)

    def test_a_change_of_phase_stops_the_walk(self) -> None:
        self.settings.batches_per_walk = 2
        self.connect()
        self.clock.advance(5)
        self.run_.phase = "validate"
        self.clock.pump([3, 5, 5])
        self.assertEqual(self.ledger.counts["delivered"], 1)
        self.run_.phase = "generate"
        self.clock.pump([5, 3])
        self.assertGreaterEqual(self.ledger.counts["delivered"], 2)

    def test_a_dead_sender_does_nothing(self) -> None:
        self.clock.advance(5)
        self.sender.kill()
        self.clock.pump([5, 5])
        self.assertEqual(self.ledger.counts["made"], 1)

    def test_nothing_is_generated_while_the_model_loads(self) -> None:
        self.sender.abandon()
        self.settings.load_seconds = 7.0
        self.start()
        self.clock.advance(5)
        self.assertFalse(self.run_.is_loaded)
        self.assertEqual(self.ledger.counts["made"], 0)
        self.clock.advance(5)
        self.assertTrue(self.run_.is_loaded)
        self.assertEqual(self.ledger.counts["made"], 1)
