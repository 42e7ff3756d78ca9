"""``dapi nodes``, ``dapi node …`` and ``dapi poc …``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.cli.cli_case import CliTestCase, recorded

FIELDS = ("--host", "10.0.0.7", "--poc-port", "8080", "--inference-port", "5000")
STAGE = ("--height", "7", "--hash", "ABCD", "--public-key", "02ab")


class NodesTests(CliTestCase):
    def test_a_line_for_each(self) -> None:
        self.client.set("GET", "/nodes", recorded("nodes")[1])
        lines = self.shown("nodes").splitlines()
        self.assertEqual(lines[1], "node1 yes GENERATING open 30s 42 0 0")
        self.assertEqual(self.told("nodes"), recorded("nodes")[1])

    def test_none(self) -> None:
        self.client.set("GET", "/nodes", [])
        self.assertIn("no node is registered", self.shown("nodes"))


class NodeTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.nodes = recorded("nodes")[1]
        self.config = self.nodes[0]["node"]
        self.client.set("GET", "/nodes", self.nodes)
        self.client.set("POST", "/nodes", self.config)
        self.client.set("PUT", "/nodes/node1", self.config)

    def sent(self) -> Any:
        return self.client.calls[-1]

    def test_add(self) -> None:
        model = ("--model", "Qwen/QwQ-32B --tp 4", "--model", "other")
        shown = self.shown("node", "add", "new", *FIELDS, *model, "--hardware", "NVIDIA H100: 80GB:8")
        self.assertIn("node1 is registered: number 1, 127.0.0.1", shown)
        body = {
            "id": "new",
            "host": "10.0.0.7",
            "poc_port": 8080,
            "inference_port": 5000,
            "models": {"Qwen/QwQ-32B": {"args": ["--tp", "4"]}, "other": {"args": []}},
            "hardware": [{"type": "NVIDIA H100: 80GB", "count": 8}],
        }
        self.assertEqual(self.sent(), ("POST", "/nodes", body))

    def test_add_one_that_is_there(self) -> None:
        self.assertIn("`dapi node set node1`", self.refused("node", "add", "node1", *FIELDS))
        self.assertEqual([method for method, *_ in self.client.calls], ["GET"])

    def test_add_what_dapi_refuses(self) -> None:
        self.client.set("POST", "/nodes", {"error": "node new: models: is missing"}, status=400)
        self.assertEqual(self.refused("node", "add", "new", *FIELDS), "dapi: node new: models: is missing\n")

    def test_add_a_file(self) -> None:
        path = Path(self.mktemp())
        for value in ([{"id": "a"}, {"id": "b"}], {"id": "a"}):
            path.write_text(json.dumps(value), encoding="utf-8")
            errors = [{"index": 1, "id": "b", "error": "node b: host: is missing"}]
            self.client.set("POST", "/nodes/batch", (206, {"nodes": [self.config], "errors": errors}))
            result = self.run_dapi("node", "add", "--file", str(path), code=1)
            self.assertEqual(result.stdout, "node1 is registered, number 1\n")
            self.assertEqual(result.stderr, "not registered: node b: host: is missing\n")
            self.assertEqual(self.sent()[2], value if isinstance(value, list) else [value])
        self.client.set("POST", "/nodes/batch", (400, {"nodes": [], "errors": errors}))
        self.assertEqual(self.told("node", "add", "--file", str(path), code=1), {"nodes": [], "errors": errors})
        self.client.set("POST", "/nodes/batch", (201, {"nodes": [self.config], "errors": []}))
        self.shown("node", "add", "--file", str(path))

    def test_add_a_file_that_cannot_be_used(self) -> None:
        path = Path(self.mktemp())
        self.assertIn("No such file", self.refused("node", "add", "--file", str(path)))
        path.write_text("[", encoding="utf-8")
        self.assertIn("is no JSON", self.refused("node", "add", "--file", str(path)))

    def test_wrong_command_lines(self) -> None:
        for arguments in (
            ("add",),
            ("add", "x", "--file", "y"),
            ("add", "x", "--hardware", "H100"),
            ("add", "x", "--model", ""),
            ("set", "node1"),
            ("set",),
            ("remove",),
            ("rename", "node1"),
        ):
            self.refused("node", *arguments, code=2)
        self.assertEqual(self.client.calls, [])

    def test_set_changes_what_is_given_and_leaves_the_rest(self) -> None:
        self.assertIn("node1 is changed", self.shown("node", "set", "node1", "--poc-port", "8081"))
        self.assertEqual(self.sent(), ("PUT", "/nodes/node1", {**self.config, "poc_port": 8081}))
        self.assertIn("'other'", self.refused("node", "set", "other", "--poc-port", "8081"))

    def test_set_never_puts_back_a_url_whose_secret_is_hidden(self) -> None:
        self.config["websocket_url"] = "ws://node/ws?(hidden)"
        self.client.set("GET", "/nodes", self.nodes)
        self.assertIn("--websocket-url", self.refused("node", "set", "node1", "--poc-port", "8081"))
        self.shown("node", "set", "node1", "--websocket-url", "ws://node/ws?token=1")
        self.assertEqual(self.sent()[2]["websocket_url"], "ws://node/ws?token=1")

    def test_remove(self) -> None:
        self.client.set("DELETE", "/nodes/a%2Fb", True)
        self.assertIn("nothing was done", self.refused("node", "remove", "a/b", typed="n\n"))
        self.assertEqual(self.client.calls, [])
        self.assertEqual(self.shown("node", "remove", "a/b", "--yes"), "a/b is removed")
        told = json.loads(self.run_dapi("node", "remove", "a/b", "--yes", "--json").stdout)
        self.assertEqual(told, {"node_id": "a/b", "removed": True})

    def test_connect_and_rotate(self) -> None:
        for verb, shown in (
            ("connect", "node1 is asked for its WebSocket at once"),
            ("rotate", "another callback token"),
        ):
            answer = {"message": "done", "node_id": "node1"}
            self.client.set("POST", f"/nodes/node1/{verb}", answer)
            self.assertIn(shown, self.shown("node", verb, "node1"))
            self.assertEqual(self.told("node", verb, "node1"), answer)

    def test_enable_and_disable(self) -> None:
        for verb in ("enable", "disable"):
            answer = {"message": f"node is {verb}d", "node_id": "node1"}
            self.client.set("POST", f"/nodes/node1/{verb}", answer)
            self.assertEqual(self.shown("node", verb, "node1"), f"node1 is {verb}d")
            self.assertEqual(self.told("node", verb, "node1"), answer)


class PocTests(CliTestCase):
    def test_refused_while_the_chain_drives(self) -> None:
        self.client.set("POST", "/poc/stop", recorded("poc-conflict"))
        error = self.refused("poc", "stop")
        self.assertIn("add --force", error)
        self.assertNotIn("?force", error)

    def test_a_line_for_each_node_and_3_when_one_failed(self) -> None:
        self.client.set("POST", "/poc/stop", recorded("poc-stop"))
        lines = self.shown("poc", "stop", "--force", code=3).splitlines()
        self.assertEqual(lines[:2], ["NODE DONE DOES ERROR", "node1 yes STOPPED -"])
        self.assertTrue(lines[3].startswith("node3 no UNKNOWN node3: stop: Connection"))
        self.assertEqual(self.client.calls, [("POST", "/poc/stop?force=true", None)])
        self.assertEqual(self.told("poc", "stop", "--force", code=3), recorded("poc-stop")[1])

    def answer(self, pending: int, failed: int = 0, **results: Any) -> dict[str, Any]:
        progress = {"duty": "GENERATE", "began_at": "then", "nodes": 300}
        counts = {"succeeded": 300 - pending - failed, "failed": failed, "pending": pending}
        return {"results": results, "progress": progress | counts}

    def test_the_stage_goes_along(self) -> None:
        for verb in ("start", "validate"):
            done = {"succeeded": True, "status": "GENERATING", "error": None}
            self.client.set("POST", f"/poc/{verb}", self.answer(0, node1=done))
            self.assertIn("node1 yes GENERATING -", self.shown("poc", verb, *STAGE))
            body = {"block_height": 7, "block_hash": "ABCD", "public_key": "02ab"}
            self.assertEqual(self.client.calls[-1], ("POST", f"/poc/{verb}", body))
            self.refused("poc", verb, *STAGE[:4], code=2)

    def test_it_waits_for_many_and_tells_how_far_they_are(self) -> None:
        self.sleeps = 9
        failed = {"succeeded": False, "status": "UNKNOWN", "error": "n7: no answer"}
        end = self.answer(0, 2, n7=failed)
        self.client.set("POST", "/poc/start", self.answer(300), status=202)
        self.client.set("GET", "/poc", (202, self.answer(200)), (202, self.answer(200)), (200, end))
        result = self.run_dapi("poc", "start", *STAGE, code=3)
        self.assertEqual(
            result.stderr.splitlines(),
            [
                "GENERATE: of 300 nodes 0 do it, 0 failed, 300 go on",
                "GENERATE: of 300 nodes 100 do it, 0 failed, 200 go on",
            ],
        )
        lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
        self.assertEqual(lines[1:], ["n7 no UNKNOWN n7: no answer", "GENERATE: of 300 nodes 298 do it, 2 failed"])
        self.client.set("GET", "/poc", (202, self.answer(200)), (200, end))
        self.assertEqual(self.told("poc", "start", *STAGE, code=3), end)

    def test_another_command_came_meanwhile(self) -> None:
        self.sleeps = 5
        self.client.set("POST", "/poc/start", self.answer(300), status=202)
        other = self.answer(10)
        other["progress"]["began_at"] = "later"
        self.client.set("GET", "/poc", other, status=202)
        self.assertIn("another command", self.refused("poc", "start", *STAGE))

    def test_how_far_the_last_one_is(self) -> None:
        pending = {"succeeded": None, "status": "pending", "error": None}
        self.client.set("GET", "/poc", self.answer(1, node1=pending), status=202)
        lines = self.shown("poc", "status").splitlines()
        self.assertEqual(lines[1:], ["node1 goes on pending -", "GENERATE: of 300 nodes 299 do it, 0 failed, 1 go on"])
        self.client.set("GET", "/poc", {"error": "no command was given by hand since dapi started"}, status=404)
        self.assertIn("no command was given", self.refused("poc", "status"))

    def test_no_node(self) -> None:
        none = self.answer(0)
        none["progress"] |= {"nodes": 0, "succeeded": 0}
        self.client.set("POST", "/poc/inference", none)
        self.assertEqual(self.shown("poc", "inference"), "no node is enabled")


class NodeTestTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sleeps = 5
        step = {"name": "init", "result": "PASS", "found": "answered LOADING", "seconds": 1.13, "to_do": None}
        bad = {"name": "rate", "result": "FAIL", "found": "0 nonces/s", "seconds": 15.0, "to_do": "look at its log"}
        begun: dict[str, Any] = {
            "node_id": "node1",
            "state": "running",
            "steps": [],
            "nonces_per_second": None,
            "began_at": "then",
        }
        self.one = {**begun, "steps": [step]}
        self.passed, self.failed = ({**begun, "state": state, "steps": [step, bad]} for state in ("passed", "failed"))
        self.client.set("POST", "/nodes/node1/test", begun, status=202)

    def test_steps_are_told_as_they_end(self) -> None:
        self.client.set("GET", "/nodes/node1/test", self.one, self.one, self.failed)
        lines = self.shown("node", "test", "node1", code=3).splitlines()
        self.assertEqual(lines[:2], ["PASS init, 1.1 s", "answered LOADING"])
        self.assertEqual(lines[2:5], ["FAIL rate, 15.0 s", "0 nonces/s", "to do: look at its log"])
        self.assertEqual(lines[5:], ["node1: the test has failed"])

    def test_passed(self) -> None:
        self.client.set("GET", "/nodes/node1/test", self.passed)
        self.assertIn("node1: the test has passed", self.shown("node", "test", "node1"))
        self.assertEqual(self.told("node", "test", "node1"), self.passed)

    def test_dapi_was_restarted_meanwhile(self) -> None:
        self.client.set("GET", "/nodes/node1/test", {**self.one, "began_at": "later"})
        self.assertIn("this test is over", self.refused("node", "test", "node1"))

    def test_refused_near_a_poc(self) -> None:
        self.client.set("POST", "/nodes/node1/test", {"error": "no test now: PoC starts in 8 blocks"}, status=409)
        self.assertEqual(self.refused("node", "test", "node1"), "dapi: no test now: PoC starts in 8 blocks\n")
