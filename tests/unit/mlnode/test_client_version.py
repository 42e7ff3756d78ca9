"""Calls go below the network's version, unless the node answers without it (docs/protocol/node.md, 'Addresses')."""

from __future__ import annotations

from typing import Any

from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from zope.interface import implementer

from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient, MLNodeState, NetworkVersion
from tests.logs import log_of

BASE = "http://10.0.0.21:8080/node"
BELOW, WITHOUT = "http://10.0.0.21:8080/v3.0.8/node/api/v1/", f"{BASE}/api/v1/"
NEXT = "http://10.0.0.21:8080/v3.0.9/node/api/v1/"


@implementer(IAgent)
class HangingAgent:
    """An agent of a node that does not answer at one URL."""

    def __init__(self, case: VersionTests) -> None:
        self._case = case

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Any:
        if uri.decode() == self._case.hangs_at:
            return Deferred()
        return self._case.agent.request(method, uri, headers, bodyProducer)


class VersionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.version = NetworkVersion("v3.0.8")
        self.asked: list[str] = []
        # What the node answers below these URLs; 404 to all others.
        self.statuses: dict[str, int] = {}
        self.state = b"STOPPED"
        self.hangs_at: str | None = None
        self.agent = RequestTraversalAgent(StringStubbingResource(self.respond))
        self.clock, agent = Clock(), HangingAgent(self)
        self.client = MLNodeClient(self.clock, BASE, node_id="node1", network_version=self.version, agent=agent)
        self.log = log_of(self)

    def respond(
        self, method: bytes, url: str, params: object, headers: dict[bytes, list[bytes]], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        self.asked.append(url)
        status = next((status for begin, status in self.statuses.items() if url.startswith(begin)), 404)
        return status, {}, b'{"state": "%s"}' % self.state if url.endswith("state") else b'{"status": "OK"}'

    def test_below_the_version(self) -> None:
        self.statuses = {BELOW: 200}
        self.successResultOf(self.client.stop())
        self.assertEqual(self.asked, [BELOW + "stop"])
        self.assertEqual((self.client.version, self.client.version_problem), ("v3.0.8", None))

    def test_inference_too(self) -> None:
        self.statuses = {"http://10.0.0.21:5000/v3.0.8/": 200}
        self.successResultOf(self.client.inference_health("http://10.0.0.21:5000"))
        self.assertEqual(self.asked, ["http://10.0.0.21:5000/v3.0.8/health"])

    def test_a_node_without_it_is_used_without_it_and_that_is_said_once(self) -> None:
        self.statuses = {WITHOUT: 200}
        self.successResultOf(self.client.stop())
        # The call did nothing below the version, so it may be made again.
        self.assertEqual(self.asked, [BELOW + "stop", BELOW + "state", WITHOUT + "state", WITHOUT + "stop"])
        self.assertEqual(self.client.version, "")
        self.assertEqual(self.client.version_problem, "answers 404 below /v3.0.8, and is used without that")
        self.asked.clear()
        self.assertEqual(self.successResultOf(self.client.state()), MLNodeState.STOPPED)
        self.assertEqual(self.asked, [BELOW + "state", WITHOUT + "state"])
        self.assertEqual(len(self.log.warnings("node1: answers 404 below /v3.0.8")), 1)

    def test_a_proxy_that_gets_the_version_later(self) -> None:
        self.statuses = {WITHOUT: 200}
        self.successResultOf(self.client.stop())
        # What answers without the version may be the node of the version before.
        self.statuses = {BELOW: 200, WITHOUT: 200}
        self.successResultOf(self.client.state())
        self.assertEqual((self.client.version, self.client.version_problem), ("v3.0.8", None))
        self.asked.clear()
        self.successResultOf(self.client.stop())
        self.assertEqual(self.asked, [BELOW + "stop"])

    def test_a_proxy_that_answers_below_the_version_alone_from_now_on(self) -> None:
        self.statuses = {WITHOUT: 200}
        self.successResultOf(self.client.stop())
        self.statuses = {BELOW: 200}
        self.asked.clear()
        self.successResultOf(self.client.stop())
        self.assertEqual(self.asked, [WITHOUT + "stop", BELOW + "state", BELOW + "stop"])

    def test_nowhere(self) -> None:
        self.statuses = {WITHOUT: 200}
        self.successResultOf(self.client.stop())
        self.statuses = {}
        for call in (self.client.state, self.client.stop):
            error = self.failureResultOf(call(), MLNodeError).value
            self.assertEqual(error.status if isinstance(error, MLNodeError) else None, 404)

    def test_one_that_comes_and_goes_is_said_once(self) -> None:
        for below in (404, 200) * 3:
            self.statuses = {BELOW: below, WITHOUT: 200}
            self.successResultOf(self.client.state())
        self.assertEqual(len(self.log.warnings("answers 404 below /v3.0.8")), 1)

    def test_another_version_is_tried_anew(self) -> None:
        self.statuses = {WITHOUT: 200}
        self.successResultOf(self.client.stop())
        self.version.value = "v3.0.9"
        self.statuses = {"http://10.0.0.21:8080/v3.0.9/": 200}
        self.successResultOf(self.client.stop())
        self.assertEqual(self.client.version, "v3.0.9")

    def come_to_the_next_version(self) -> None:
        self.statuses = {BELOW: 200}
        self.successResultOf(self.client.state())
        self.version.value, self.asked = "v3.0.9", []
        self.statuses[NEXT] = 200

    def test_the_node_of_the_version_before_is_stopped_once(self) -> None:
        self.come_to_the_next_version()
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.client.state()), MLNodeState.STOPPED)
        self.assertEqual(self.asked, [NEXT + "state", BELOW + "stop", NEXT + "state"])
        text = "node1: below /v3.0.9 now; what ran below /v3.0.8 was told to stop, and answered 200"
        self.assertEqual(len(self.log.lines(containing=text)), 1)

    def test_whatever_it_answers_to_that(self) -> None:
        self.come_to_the_next_version()
        self.statuses = {NEXT: 200}
        self.successResultOf(self.client.state())
        self.assertEqual(len(self.log.lines(containing="was told to stop, and answered 404")), 1)
        self.assertEqual(self.client.version, "v3.0.9")

    def test_nor_when_it_hangs(self) -> None:
        self.come_to_the_next_version()
        self.hangs_at = BELOW + "stop"
        asking = self.client.state()
        self.clock.pump([1.0] * 9)
        self.assertNoResult(asking)
        self.clock.advance(1.0)
        self.assertEqual(self.successResultOf(asking), MLNodeState.STOPPED)
        self.assertEqual(len(self.log.lines(containing="was told to stop, and did not answer")), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_works_already_is_the_same_one_behind_both(self) -> None:
        self.come_to_the_next_version()
        self.state = b"POW"
        self.successResultOf(self.client.state())
        self.assertEqual(self.asked, [NEXT + "state"])

    def test_not_before_the_next_one_is_there(self) -> None:
        self.come_to_the_next_version()
        del self.statuses[NEXT]
        self.failureResultOf(self.client.state(), MLNodeError)
        self.assertNotIn(BELOW + "stop", self.asked)
        self.statuses[NEXT] = 200
        self.successResultOf(self.client.state())
        self.assertIn(BELOW + "stop", self.asked)

    def test_a_call_that_the_node_does_not_have_says_nothing_about_the_version(self) -> None:
        self.statuses = {BELOW + "state": 200, WITHOUT: 200}
        error = self.failureResultOf(self.client.inference_up_async("model"), MLNodeError).value
        self.assertEqual(error.status if isinstance(error, MLNodeError) else None, 404)
        self.assertEqual(self.client.version, "v3.0.8")

    def test_a_node_that_is_not_well_without_it_either(self) -> None:
        self.statuses = {WITHOUT: 502}
        self.failureResultOf(self.client.stop(), MLNodeError)
        self.assertEqual(self.client.version, "v3.0.8")

    def test_no_version(self) -> None:
        self.version.value = ""
        self.failureResultOf(self.client.stop(), MLNodeError)
        self.assertEqual(self.asked, [WITHOUT + "stop"])
