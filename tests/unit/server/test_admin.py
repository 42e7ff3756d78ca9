"""The admin API, asked over an in-memory HTTP connection."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from dapi.broker.node_worker_commands import CommandResult, NodeFailure
from dapi.broker.nodes import decode_node_config
from dapi.errors import NotReadyError, StoreBusyError
from dapi.messages import Kind, State
from dapi.phases.duty import Duty
from dapi.server.admin import AdminApi
from tests.fake_broker import FakeBroker, FakeOutbox, node_fields
from tests.nodes import FakeWebSocket
from tests.unit.server.resource_client import ResourceClient

BLOCK = {"block_height": 1000, "block_hash": "ABCDEF", "public_key": "02ab"}
GENERATING = CommandResult(True, "GENERATING")


class AdminTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = FakeBroker()
        self.listing = FakeOutbox()
        self.status: Any = {"state": "fine"}
        self.http = ResourceClient(self, self.api().resource())

    def api(self, **options: Any) -> AdminApi:
        return AdminApi(self.clock, self.broker, self.listing, lambda: self.status, **options)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Deferred[IResponse]:
        if body is not None:
            headers.setdefault("content_type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.ask(method, f"http://127.0.0.1:9200/admin/v1{path}", body, sent)

    def answered(self, asked: Deferred[IResponse]) -> tuple[int, Any]:
        response, body = self.http.answered(asked)
        self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/json"])
        return response.code, json.loads(body)

    def got(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return self.answered(self.ask(method, path, body, **headers))

    def assert_error(self, answered: tuple[int, Any], code: int, message: str) -> None:
        self.assertEqual(answered[0], code, answered[1])
        self.assertEqual(list(answered[1]), ["error"])
        self.assertIn(message, answered[1]["error"])


class NodeTests(AdminTestCase):
    def test_a_failed_batch_is_sent_again(self) -> None:
        code, answered = self.got("POST", "/batches/failed/retry")
        self.assertEqual((code, answered["batch_id"]), (200, "failed"))
        self.assertEqual(self.listing.failed, set())
        code, answered = self.got("POST", "/batches/failed/retry")
        self.assertEqual((code, answered), (404, {"error": "no failed batch has the id 'failed'"}))

    def test_no_node(self) -> None:
        self.assertEqual(self.got("GET", "/nodes"), (200, []))

    def test_add_and_change(self) -> None:
        code, node = self.got("POST", "/nodes", node_fields())
        self.assertEqual(code, 200)
        self.assertEqual(node, node | node_fields() | {"node_num": 1})
        code, node = self.got("POST", "/nodes", node_fields(poc_port=8081))
        self.assertEqual((code, node["poc_port"], node["node_num"]), (200, 8081, 1))
        code, nodes = self.got("GET", "/nodes")
        self.assertEqual(code, 200)
        (entry,) = nodes
        self.assertEqual(entry["node"], node)
        self.assertEqual(entry["state"]["websocket"]["state"], "stopped")
        self.assertTrue(entry["state"]["enabled"])

    def test_add_refused(self) -> None:
        for body, message in (
            (node_fields(poc_port="8080"), "node node1: poc_port: "),
            (node_fields(host="taken"), "node node1: host, poc_port: taken"),
            ([], "node: "),
            (b"{", "truncated"),
            (b'{"id": "\xff"}', ""),
            (b"[" * 100_000, "recursion"),
            (b"", "truncated"),
        ):
            self.assert_error(self.got("POST", "/nodes", body), 400, message)
        self.assertEqual(self.broker.by_id, {})

    def test_store_busy_and_broker_not_ready(self) -> None:
        for error in (StoreBusyError("the disk is full"), NotReadyError("dapi is stopping")):
            self.broker.error = error
            self.assert_error(self.got("POST", "/nodes", node_fields()), 503, str(error))
            self.assert_error(self.got("POST", "/nodes/batch", [node_fields()]), 503, str(error))
            self.assert_error(self.got("DELETE", "/nodes/node1"), 503, str(error))
            self.assert_error(self.got("POST", "/nodes/node1/enable"), 503, str(error))

    def test_body_has_to_be_declared_as_json(self) -> None:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
            answered = self.got("POST", "/nodes", node_fields(), content_type=content_type)
            self.assert_error(answered, 415, "Content-Type: application/json")
        answered = self.got("POST", "/nodes", node_fields(), content_type="Application/JSON; charset=utf-8")
        self.assertEqual(answered[0], 200)

    def test_put(self) -> None:
        fields = node_fields()
        del fields["id"]
        self.assertEqual(self.got("PUT", "/nodes/node1", fields)[0], 200)
        self.assertEqual(self.got("PUT", "/nodes/node1", node_fields(poc_port=8081))[0], 200)
        self.assertEqual(self.broker.nodes()[0].config.poc_port, 8081)
        self.assert_error(self.got("PUT", "/nodes/node1", node_fields("node2")), 400, "id: ")
        self.assert_error(self.got("PUT", "/nodes/node1", []), 400, "node: ")

    def test_batch(self) -> None:
        code, answered = self.got("POST", "/nodes/batch", [node_fields("a"), node_fields("b")])
        self.assertEqual((code, answered["errors"]), (201, []))
        self.assertEqual([node["node_num"] for node in answered["nodes"]], [1, 2])
        code, answered = self.got("POST", "/nodes/batch", [node_fields("c"), {"id": "d"}, 7])
        self.assertEqual(code, 206)
        self.assertEqual([node["id"] for node in answered["nodes"]], ["c"])
        self.assertEqual([(error["index"], error["id"]) for error in answered["errors"]], [(1, "d"), (2, None)])
        self.assertIn("host", answered["errors"][0]["error"])
        code, answered = self.got("POST", "/nodes/batch", [{"id": "d"}])
        self.assertEqual((code, answered["nodes"], len(answered["errors"])), (400, [], 1))
        self.assertEqual(self.got("POST", "/nodes/batch", []), (201, {"nodes": [], "errors": []}))
        self.assert_error(self.got("POST", "/nodes/batch", {}), 400, "array")

    def test_delete(self) -> None:
        self.got("POST", "/nodes", node_fields())
        self.assertEqual(self.got("DELETE", "/nodes/node1"), (200, True))
        self.assert_error(self.got("DELETE", "/nodes/node1"), 404, "'node1'")

    def test_enable_and_disable(self) -> None:
        self.got("POST", "/nodes", node_fields())
        for verb, enabled in (("disable", False), ("enable", True)):
            code, answered = self.got("POST", f"/nodes/node1/{verb}")
            self.assertEqual((code, answered), (200, {"message": f"node is {verb}d", "node_id": "node1"}))
            self.assertEqual(self.broker.nodes()[0].enabled, enabled)
            self.assert_error(self.got("POST", f"/nodes/other/{verb}"), 404, "'other'")

    def test_connect(self) -> None:
        self.broker.add_node(decode_node_config(node_fields("a")))
        code, answer = self.got("POST", "/nodes/a/connect")
        self.assertEqual(code, 409)
        self.assertIn("not waiting", answer["error"])
        self.patch(FakeWebSocket, "is_waiting", True)
        self.assertEqual(self.got("POST", "/nodes/a/connect")[0], 200)
        self.assertEqual(self.got("POST", "/nodes/b/connect")[0], 404)

    def test_wrong_method_and_path(self) -> None:
        for method, path, code in (
            ("DELETE", "/nodes", 405),
            ("GET", "/nodes/batch", 405),
            ("GET", "/nodes/node1/enable", 405),
            ("GET", "/poc/start", 405),
            ("POST", "/poc/other", 404),
            ("POST", "/status", 405),
            ("POST", "/batches", 405),
            ("GET", "/config", 404),
        ):
            self.assert_error(self.got(method, path), code, path)


class PocTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        for node_id in ("a", "b", "off"):
            self.broker.add_node(decode_node_config(node_fields(node_id)))
        self.broker.disable_node("off")

    def progress(self, duty: Duty, succeeded: int, failed: int, pending: int) -> dict[str, Any]:
        return {
            "duty": duty,
            "began_at": "1970-01-01T00:00:00.000Z",
            "nodes": succeeded + failed + pending,
            "succeeded": succeeded,
            "failed": failed,
            "pending": pending,
        }

    def test_commands(self) -> None:
        about = tuple(BLOCK.values())
        for path, body, duty, stage in (
            ("/poc/start", BLOCK, Duty.GENERATE, about),
            ("/poc/validate", BLOCK, Duty.VALIDATE, about),
            ("/poc/stop", None, Duty.STOPPED, ()),
            ("/poc/inference", None, Duty.INFERENCE, ()),
        ):
            waiting = self.ask("POST", path, body)
            self.assertNoResult(waiting)
            self.assertEqual(self.broker.commands[-1], (duty, *stage))
            self.broker.end_command("a", GENERATING)
            self.assertNoResult(waiting)
            self.broker.end_command("b", CommandResult.failed("b: no", NodeFailure.REFUSED))
            done = {"succeeded": True, "status": "GENERATING", "error": None, "is_model_initialized": False}
            refused = {"succeeded": False, "status": "UNKNOWN", "error": "b: no", "is_model_initialized": False}
            expected = {"results": {"a": done, "b": refused}, "progress": self.progress(duty, 1, 1, 0)}
            self.assertEqual(self.answered(waiting), (200, expected))
            self.assertEqual(self.got("GET", "/poc"), (200, expected))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_nodes(self) -> None:
        waiting = self.ask("POST", "/poc/start", BLOCK)
        self.broker.end_command("b", GENERATING)
        self.clock.advance(19.9)
        self.http.flush()
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        done = {"succeeded": True, "status": "GENERATING", "error": None, "is_model_initialized": False}
        pending = {"succeeded": None, "status": "pending", "error": None}
        expected = {"results": {"a": pending, "b": done}, "progress": self.progress(Duty.GENERATE, 1, 0, 1)}
        self.assertEqual(self.answered(waiting), (202, expected))
        self.assertEqual(self.got("GET", "/poc"), (202, expected))
        self.broker.end_command("a", GENERATING)
        code, answered = self.got("GET", "/poc")
        self.assertEqual((code, answered["results"]), (200, {"a": done, "b": done}))

    def test_more_nodes_than_anybody_waits_for(self) -> None:
        for number in range(300):
            self.broker.add_node(decode_node_config(node_fields(f"n{number}")))
        code, answered = self.got("POST", "/poc/start", BLOCK)
        expected = {"results": {}, "progress": self.progress(Duty.GENERATE, 0, 0, 302)}
        self.assertEqual((code, answered), (202, expected))
        given = [node_id for node_id, worker in self.broker.by_id.items() if worker.commanded]
        self.assertLess(len(given), 20)
        while self.broker.clock.getDelayedCalls():
            self.broker.clock.advance(0)
        self.assertTrue(all(worker.commanded for worker in self.broker.by_id.values() if worker.node.enabled))
        for number in range(300):
            failed = CommandResult.failed("no", NodeFailure.REFUSED)
            self.broker.end_command(f"n{number}", GENERATING if number < 150 else failed)
        code, answered = self.got("GET", "/poc")
        self.assertEqual((code, answered["progress"]), (202, self.progress(Duty.GENERATE, 150, 150, 2)))
        self.assertEqual(list(answered["results"]), [f"n{number}" for number in range(150, 250)])
        self.broker.end_command("a", GENERATING)
        self.broker.end_command("b", GENERATING)
        self.assertEqual(self.got("GET", "/poc")[0], 200)

    def test_no_command_yet(self) -> None:
        self.assert_error(self.got("GET", "/poc"), 404, "no command was given by hand")

    def test_bad_parameters(self) -> None:
        for changes, message in (
            ({"block_height": -1}, "$.block_height"),
            ({"block_height": "1"}, "$.block_height"),
            ({"block_height": True}, "$.block_height"),
            ({"block_height": 1.5}, "$.block_height"),
            ({"block_height": 2**63}, "$.block_height"),
            ({"block_hash": ""}, "$.block_hash"),
            ({"block_hash": None}, "$.block_hash"),
            ({"public_key": "xy"}, "$.public_key"),
            ({"public_key": "abc"}, "$.public_key"),
            ({"public_key": "ab\n"}, "$.public_key"),
            ({"public_key": ""}, "$.public_key"),
            ({"more": 1}, "more"),
        ):
            for path in ("/poc/start", "/poc/validate"):
                self.assert_error(self.got("POST", path, BLOCK | changes), 400, message)
        self.assert_error(self.got("POST", "/poc/start", {"block_height": 1}), 400, "block_hash")
        self.assert_error(self.got("POST", "/poc/start"), 415, "Content-Type")
        self.assertEqual(self.broker.commands, [])


class StatusAndBatchTests(AdminTestCase):
    def test_status(self) -> None:
        self.assertEqual(self.got("GET", "/status"), (200, {"state": "fine"}))
        self.status = succeed({"state": "later"})
        self.assertEqual(self.got("GET", "/status"), (200, {"state": "later"}))

    def test_status_that_cannot_be_told(self) -> None:
        self.status = fail(StoreBusyError("the disk is full"))
        self.assert_error(self.got("GET", "/status"), 503, "the disk is full")

    def test_batches(self) -> None:
        code, answered = self.got("GET", "/batches")
        self.assertEqual(code, 200)
        self.assertEqual(
            answered,
            {
                "batches": [
                    {
                        "seq": 42,
                        "batch_id": "ab12",
                        "kind": "generated",
                        "state": "stored",
                        "node_id": "node1",
                        "via": "http",
                        "seen": 2,
                        "height": 1000,
                        "nonces": 7,
                        "received_at": "2001-09-09T01:46:40.250Z",
                        "last_seen_at": "2001-09-09T01:46:41.000Z",
                        "finished_at": None,
                        "tx_hash": None,
                        "included_height": None,
                        "reason": None,
                    }
                ],
                "next": 41,
            },
        )
        self.assertEqual(
            self.listing.asked, {"node_id": None, "kind": None, "state": None, "limit": 100, "before": None}
        )

    def test_filters(self) -> None:
        self.got("GET", "/batches?node_id=n%C3%B6de&kind=validated&state=in_flight&limit=5&cursor=41")
        self.assertEqual(
            self.listing.asked,
            {"node_id": "nöde", "kind": Kind.VALIDATED, "state": State.IN_FLIGHT, "limit": 5, "before": 41},
        )

    def test_bad_filters(self) -> None:
        for query, message in (
            ("kind=other", "kind: 'other' is none of generated, validated"),
            ("state=", "state: '' is none of stored, in_flight, confirmed, failed, expired"),
            ("limit=0", "limit: '0' is no whole number from 1 to 1000"),
            ("limit=1001", "limit: "),
            ("limit=-1", "limit: "),
            ("limit=%C2%B2", "limit: "),
            ("limit=" + "9" * 5000, "limit: "),
            ("cursor=x", "cursor: "),
            ("cursor=" + str(2**63), "cursor: "),
            ("kind=generated&kind=validated", "kind: is given 2 times"),
            ("node=x", "node: is no parameter; there are node_id, kind, state, limit, cursor"),
        ):
            self.assert_error(self.got("GET", f"/batches?{query}"), 400, message)

    def test_store_busy(self) -> None:
        self.listing.page = fail(StoreBusyError("the database is locked"))
        self.assert_error(self.got("GET", "/batches"), 503, "locked")


class BrowserTests(AdminTestCase):
    def test_own_origin(self) -> None:
        for origin in ("http://127.0.0.1:9200", "https://127.0.0.1:9200"):
            self.assertEqual(self.got("POST", "/poc/stop", origin=origin)[0], 200)

    def test_foreign_origin(self) -> None:
        for origin in (
            "http://example.com",
            "null",
            "http://127.0.0.1:9200.example.com",
            "http://127.0.0.1:80",
            "http://[",
        ):
            self.assert_error(self.got("POST", "/poc/stop", origin=origin), 403, origin)
        self.assertEqual(self.broker.commands, [])

    def test_what_a_page_from_elsewhere_shows(self) -> None:
        """A picture, whose address is that of the stream, would take the place of a reader, and has no origin."""

        def code(method: str, site: str, mode: str) -> int:
            headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
            path = "/poc/stop" if method == "POST" else "/status"
            return int(self.got(method, path, **headers)[0])

        for site in ("cross-site", "same-site"):
            for mode in ("no-cors", "cors", "websocket", "same-origin"):
                self.assertEqual(code("GET", site, mode), 403, (site, mode))
            self.assertEqual(code("GET", site, "navigate"), 200, "a link")
            self.assertEqual(code("POST", site, "navigate"), 403, "a form")
        self.assertEqual(self.broker.commands, [])
        for site in ("same-origin", "none"):
            self.assertEqual([code("GET", site, "no-cors"), code("POST", site, "cors")], [200, 200])

    def host(self, name: str) -> tuple[int, Any]:
        return self.got("GET", "/status", host=name)

    def test_foreign_host(self) -> None:
        for name in ("example.com", "example.com:9200", "localhost.example.com", "127.0.0.1.example.com", "[", ""):
            self.assert_error(self.host(name), 403, "localhost")
        for name in ("localhost", "LOCALHOST:9200", "127.0.0.1:9200", "[::1]:9200", "10.0.0.1"):
            self.assertEqual(self.host(name)[0], 200, name)

    def test_hosts_that_are_allowed(self) -> None:
        self.http = ResourceClient(self, self.api(hosts=["api", "Dapi.example"]).resource())
        for name in ("api:9200", "API", "dapi.example", "localhost", "10.0.0.1"):
            self.assertEqual(self.host(name)[0], 200)
        self.assert_error(self.host("example.com"), 403, "api.admin_hosts")

    def test_nothing_changes_by_get(self) -> None:
        rules = self.api().resource()._guarded._app.url_map.iter_rules()  # type: ignore[attr-defined]
        paths = {rule.rule.rpartition("/v1")[2] for rule in rules if "GET" in rule.methods}
        changing = {"/poc/start", "/poc/stop", "/batches/retry", "/nodes/<node_id>/rotate", "/nodes/<node_id>/enable"}
        self.assertFalse(paths & changing)
