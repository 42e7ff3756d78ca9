"""Calls go below the network's version, unless the node answers without it (docs/protocol/node.md, 'Addresses')."""

from __future__ import annotations

from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient, MLNodeState, NetworkVersion
from tests.logs import log_of

BASE = "http://10.0.0.21:8080/node"
BELOW, WITHOUT = "http://10.0.0.21:8080/v3.0.8/node/api/v1/", f"{BASE}/api/v1/"


class VersionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.version = NetworkVersion("v3.0.8")
        self.asked: list[str] = []
        # What the node answers below these URLs; 404 to all others.
        self.statuses: dict[str, int] = {}
        agent = RequestTraversalAgent(StringStubbingResource(self.respond))
        self.client = MLNodeClient(Clock(), BASE, node_id="node1", network_version=self.version, agent=agent)
        self.log = log_of(self)

    def respond(
        self, method: bytes, url: str, params: object, headers: dict[bytes, list[bytes]], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        self.asked.append(url)
        status = next((status for begin, status in self.statuses.items() if url.startswith(begin)), 404)
        return status, {}, b'{"state": "STOPPED"}' if url.endswith("state") else b'{"status": "OK"}'

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
