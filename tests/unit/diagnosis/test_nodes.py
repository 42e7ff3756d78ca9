"""What is found wrong with ML nodes, their WebSockets, their way to the callbacks, and the process."""

from __future__ import annotations

import copy
from typing import Any

from dapi.diagnosis.callbacks import CALLBACK_SECONDS
from dapi.diagnosis.problem import Finding
from tests.unit.diagnosis.statuses import NODE, STANDING, CheckTestCase

SILENT: dict[str, Any] = NODE | {"websocket": {"state": "stopped", "reason": None, "trouble": None}}

CERTIFICATE = {"state": "current", "expires_at": 2e9, "days_left": 80.0, "problem": None}


class NodeTests(CheckTestCase):
    """Whether nodes are reached, and do what they are to do."""

    def test_nodes_that_are_not_loaded(self) -> None:
        self.assertEqual(self.one("nodes-not-loaded", broker__problem="b: left out: why").problem, "b: left out: why")

    def test_failures(self) -> None:
        problem = "a: state: Connection was refused by other side"
        for failure, problem_id, to_do in (
            ("unreachable", "node-down", "http://10.0.0.7:8080"),
            ("refused", "node-refusing", "whose 404 may come of a wrong version or poc_port"),
            ("defect", "node-command-broke", "report it"),
        ):
            for intended, severity in (("GENERATE", "critical"), ("VALIDATE", "critical"), ("INFERENCE", "warning")):
                finding = self.standing(problem_id, failure=failure, problem=problem, intended=intended)
                self.assertEqual((finding.problem, finding.node_id), (problem, "a"))
                self.assertEqual((finding.severity, finding.for_seconds), (severity, 10.0))
                self.assertIn(to_do, finding.to_do)
            failing = STANDING | {"failure": failure, "problem": problem}
            self.assertEqual(self.found(chain__poc__nodes__a=failing, nodes__0__enabled=False), [])

    def test_a_command_that_was_cut_short_says_nothing_of_the_node(self) -> None:
        cut_short = STANDING | {"failure": "not_executed", "problem": "a: cut short: superseded"}
        self.assertEqual(self.found(chain__poc__nodes__a=cut_short), [])

    def test_a_node_that_is_commanded_by_hand(self) -> None:
        result = {"succeeded": False, "status": "UNKNOWN", "error": "a: why", "failure": "unreachable"}
        for command, severity in (("StartPocCommand", "critical"), ("StopNodeCommand", "warning")):
            last = {"command": command, "result": result}
            finding = self.found(chain__poc=None, nodes__0__last=last)[-1]
            self.assertEqual((finding.id, finding.severity, finding.problem), ("node-down", severity, "a: why"))
            under_way = self.found(chain__poc=None, nodes__0__last=last, nodes__0__command="StartPocCommand")
            self.assertEqual([finding.id for finding in under_way], ["not-driving"])
        self.assertEqual(len(self.found(chain__poc=None, nodes__0__last=None)), 1)

    def test_a_node_that_is_idle_or_does_something_else(self) -> None:
        for found, problem_id in (
            ("STOPPED", "node-idle"),
            ("IDLE", "node-idle"),
            ("NOT_LOADED", "node-idle"),
            ("VALIDATING", "node-elsewhere"),
            ("GENERATING, begun anew", "node-elsewhere"),
        ):
            finding = self.standing(problem_id, found=found)
            self.assertEqual(finding.problem, f"a: found {found}, where it is to GENERATE")
            self.assertEqual((finding.severity, finding.for_seconds), ("critical", 15.0))
        self.assertEqual(self.standing("node-idle", found="STOPPED", intended="INFERENCE").severity, "warning")

    def test_in_poc_without_a_batch(self) -> None:
        self.assertEqual(self.found(chain__poc__nodes__a__silent_seconds=59.0), [])
        finding = self.standing("node-without-batches", silent_seconds=60.2)
        self.assertEqual(finding.problem, "a: is to generate, and no batch came from it for 60 s")
        self.assertIn("http://10.0.0.5:9100", finding.to_do)
        failing = {"failure": "unreachable", "problem": "a: state: refused", "silent_seconds": 75.0}
        found = self.found(chain__poc__nodes__a=STANDING | failing)
        self.assertEqual([finding.id for finding in found], ["node-down", "node-without-batches"])
        self.assertTrue(found[1].problem.endswith("for 75 s (a: state: refused)"))

    def test_of_another_run(self) -> None:
        self.assertIn("block hash", self.standing("node-of-other-stage", other_run="stage").problem)
        self.assertIn("another participant's", self.standing("node-of-other-owner", other_run="owner").problem)

    def test_another_nodes_number(self) -> None:
        finding = self.one("node-number-differs", nodes__0__other_num=2)
        self.assertIn("a: batches say node number 2, on number 1's connection", finding.problem)


class WebSocketTests(CheckTestCase):
    """Why a WebSocket cannot be used."""

    def trouble(self, problem_id: str, cause: str, code: int | None = None, names: tuple[str, ...] = ()) -> Finding:
        trouble = {"cause": cause, "code": code, "reason": "why", "since": 1.0, "names": names}
        websocket = {"state": "refused", "reason": "why", "trouble": trouble}
        finding = self.one(problem_id, nodes__0__websocket=websocket, nodes__0__batches={"by_http": 1})
        self.assertEqual((finding.problem, finding.for_seconds), ("a: no WebSocket: why", 30.0))
        self.assertEqual(self.found(nodes__0__websocket=websocket, nodes__0__enabled=False), [])
        return finding

    def test_causes(self) -> None:
        for problem_id, cause, code, to_do in (
            ("websocket-not-found", "http", 404, "proxy_set_header Upgrade $http_upgrade;"),
            ("websocket-forbidden", "http", 401, "headers_file"),
            ("websocket-forbidden", "http", 403, "headers_file"),
            ("websocket-fails", "http", 502, "the proxy"),
            ("websocket-policy", "closed_by_node", 1008, "no other client"),
            ("websocket-fails", "closed_by_node", 1011, "the log of the node"),
            ("websocket-unreachable", "dns", None, "host and port"),
            ("websocket-unreachable", "tcp", None, "host and port"),
            ("websocket-fails", "no_websocket", None, "the log of the node"),
            ("websocket-fails", "lost", None, "the log of the node"),
        ):
            self.assertIn(to_do, self.trouble(problem_id, cause, code).to_do)

    def test_tls_names_what_the_certificate_is_for(self) -> None:
        self.assertIn(
            "(node.example, 10.0.0.1)", self.trouble("websocket-tls", "tls", None, ("node.example", "10.0.0.1")).to_do
        )
        self.assertIn("tls.ca_file", self.trouble("websocket-tls", "tls").to_do)

    def test_a_node_without_a_websocket_loses_nothing_while_http_works(self) -> None:
        self.assertEqual(self.trouble("websocket-not-found", "http", 404).severity, "info")
        trouble = {"cause": "http", "code": 404, "reason": "why", "since": 1.0, "names": ()}
        websocket = {"state": "open", "reason": None, "trouble": trouble}
        self.assertIsNone(self.one("websocket-not-found", nodes__0__websocket=websocket).severity)


class CallbackTests(CheckTestCase):
    """A callback URL that a node does not reach is told with what is known."""

    def unreached(self, url: str = "http://10.0.0.5:9100/v1/poc-batches", **changes: Any) -> list[Finding]:
        return self.found(**{"nodes": [copy.deepcopy(SILENT)], "callbacks__url": url} | changes)

    def test_never_seen(self) -> None:
        (finding,) = self.unreached()
        self.assertEqual((finding.id, finding.node_id), ("callbacks-never-seen", "a"))
        self.assertEqual(finding.for_seconds, CALLBACK_SECONDS)
        self.assertTrue(finding.problem.endswith("no node has delivered there since dapi started"))
        self.assertIn("api.poc_callback_url", finding.to_do)

    def test_others_that_reach_it_are_told(self) -> None:
        others = [NODE | {"node_id": name, "batches": {"by_http": 3}} for name in ("b", "c")]
        (finding,) = self.unreached(nodes=[SILENT, *others])
        self.assertIn("others have delivered there since dapi started: 2 nodes, such as b", finding.problem)
        self.assertIn("firewall", finding.to_do)

    def test_a_url_that_is_the_node_itself(self) -> None:
        for host in ("127.0.0.1", "localhost", "[::1]"):
            (finding,) = self.unreached(f"http://{host}:9100/v1/poc-batches")
            self.assertEqual((finding.id, finding.severity), ("callback-url-loopback", "critical"))
            self.assertIn("is the node itself, for the node", finding.problem)
            # A node that has another way, or nothing to deliver, loses nothing.
            (finding,) = self.found(callbacks__url=f"http://{host}:9100/v1/poc-batches")
            self.assertEqual(finding.severity, "warning")
        near = SILENT | {"poc_url": "http://127.0.0.1:8080"}
        (finding,) = self.unreached("http://127.0.0.1:9100/v1/poc-batches", nodes=[near])
        self.assertEqual(finding.id, "callbacks-never-seen")

    def test_a_url_with_the_name_of_a_compose_service(self) -> None:
        for poc_url, problem_id in (
            ("http://10.0.0.7:8080", "callback-url-name"),
            ("http://gpu1.example.com:8080", "callback-url-name"),
            ("http://mlnode1:8080", "callbacks-never-seen"),
            ("http://127.0.0.1:8080", "callbacks-never-seen"),
        ):
            (finding,) = self.unreached("http://api:9100/v1/poc-batches", nodes=[SILENT | {"poc_url": poc_url}])
            self.assertEqual(finding.id, problem_id)
        (finding,) = self.unreached("http://api:9100/v1/poc-batches")
        self.assertIn("api looks like the name of a compose service", finding.problem)

    def test_many_nodes_are_one_problem(self) -> None:
        nodes = [SILENT | {"node_id": name} for name in "abc"]
        (finding,) = self.unreached("http://127.0.0.1:9100/v1/poc-batches", nodes=nodes)
        self.assertTrue(finding.problem.startswith("3 nodes, such as a, cannot reach http://127.0.0.1:9100"))

    def test_a_url_with_another_port(self) -> None:
        (finding,) = self.unreached("http://10.0.0.5:8000/v1/poc-batches")
        self.assertEqual((finding.id, finding.node_id), ("callback-url-port", "a"))
        self.assertIn("the URL has port 8000, and dapi listens on 9100", finding.problem)
        # Others come through: the port is forwarded.
        other = NODE | {"node_id": "b", "batches": {"by_http": 3}}
        (finding,) = self.unreached("http://10.0.0.5:8000/v1/poc-batches", nodes=[SILENT, other])
        self.assertEqual(finding.id, "callbacks-never-seen")

    def test_not_of_a_node_that_has_another_way_or_nothing_to_deliver(self) -> None:
        for changes in (
            {"nodes__0__websocket": {"state": "open", "reason": None, "trouble": None}},
            {"nodes__0__batches": {"by_http": 1}},
            {"nodes__0__enabled": False},
            {"chain__poc__nodes__a__current": "LOADING"},
            {"chain__poc__nodes__a__intended": "INFERENCE"},
        ):
            self.assertEqual(self.unreached(**changes), [], changes)

    def test_a_node_that_is_commanded_by_hand(self) -> None:
        self.assertEqual([each.id for each in self.unreached(chain__poc=None)], ["not-driving", "callbacks-never-seen"])
        stopped = {"command": "StopNodeCommand", "result": {"succeeded": True, "failure": None, "error": None}}
        found = self.unreached(chain__poc=None, nodes__0__last=stopped)
        self.assertEqual([each.id for each in found], ["not-driving"])


class ProcessTests(CheckTestCase):
    """Open files, and who can come in."""

    def test_files(self) -> None:
        for process in (
            {"open_files": None, "max_files": 202},
            {"open_files": 900, "max_files": None},
            {"open_files": 181, "max_files": 202},
        ):
            self.assertEqual(self.found(process=process), [])
        finding = self.one("files-short", process={"open_files": 20, "max_files": 201})
        self.assertEqual(finding.problem, "1 nodes may need 202 open files, and 201 are allowed")
        finding = self.one("files-short", process={"open_files": 950, "max_files": 1024})
        self.assertEqual(finding.problem, "950 files are open, and 1024 are allowed")

    def test_callbacks_without_a_token(self) -> None:
        refused = self.one("callbacks-refused", callbacks__refused_lately=True)
        self.assertIn("are refused: 4 so far, from 10.9.9.9 and 1 more", refused.problem)
        self.assertIn("set api.callback_auth to optional", refused.to_do)
        self.assertIn("can post for any node", self.one("callbacks-open", callbacks__unproven="taken").problem)
        self.assertEqual(self.found(callbacks__unproven="until the next stage"), [])

    def test_admin_api(self) -> None:
        self.assertIn("its token is not encrypted", self.one("admin-open", admin__host="0.0.0.0").problem)
        self.assertEqual(self.found(admin={"host": "0.0.0.0", "port": 9200, "tls": CERTIFICATE}), [])

    def test_a_node_of_which_too_much_waits(self) -> None:
        outbox = {"node_quota": {"refused": 3, "full": {"a": 20_000}}}
        finding = self.one("node-quota-full", outbox=outbox)
        self.assertEqual(finding.node_id, "a")
        self.assertEqual(finding.problem, "a: 20000 messages of it wait for the chain, and no more are taken")

    def test_certificate(self) -> None:
        self.assertEqual(self.found(callbacks__tls=CERTIFICATE), [])
        ends = self.one("certificate-ends", callbacks__tls={**CERTIFICATE, "days_left": 13.5})
        self.assertIn("ends in 13.5 days", ends.problem)
        ended = self.one("certificate-ended", callbacks__tls={**CERTIFICATE, "days_left": -2.0})
        self.assertIn("ended 2.0 days ago", ended.problem)
        changed = {**CERTIFICATE, "state": "stale", "problem": "tls.key k does not fit"}
        unusable = self.one("certificate-unusable", callbacks__tls=changed)
        self.assertEqual(unusable.problem, "the certificate from before is still shown: tls.key k does not fit")
