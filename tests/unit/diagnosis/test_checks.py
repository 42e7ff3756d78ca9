"""What each state of a part says is wrong."""

from __future__ import annotations

import copy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.checks import findings
from dapi.diagnosis.problem import Finding

NODE: dict[str, Any] = {
    "node_id": "a",
    "enabled": True,
    "command": None,
    "last": {"command": "StartPocCommand", "result": {"succeeded": True, "status": "GENERATING", "error": None}},
    "websocket": {"state": "open", "reason": None},
    "batches": {"by_http": 0},
    "poc_url": "http://10.0.0.7:8080",
}
SILENT: dict[str, Any] = NODE | {"websocket": {"state": "stopped", "reason": None}}
STANDING: dict[str, Any] = {"intended": "GENERATE", "current": "GENERATING", "problem": None, "tries": 0}
# All is well: dapi follows a chain, and a node generates.
WELL: dict[str, Any] = {
    "database": {"state": "ok", "reason": "", "since": 1.0, "writing_seconds": 0.1, "path": "/x.db"},
    "callbacks": {
        "url": "http://10.0.0.5:9100/v1/poc-batches",
        "port": 9100,
        "unproven": "refused",
        "refused_by_address": {"10.9.9.9": 3, "10.9.9.8": 1},
        "refused_lately": False,
    },
    "admin": {"host": "127.0.0.1", "port": 9200},
    "broker": {"is_loaded": True, "problem": None},
    "nodes": [NODE],
    "chain": {
        "state": "submitting",
        "reason": None,
        "problem": None,
        "signer": "gonka1signer",
        "participant": "gonka1participant",
        "clock_offset_seconds": 0.0,
        "nodes": [{"name": "c:26657", "standing": "sound", "last_problem": None}],
        "poc": {"problem": None, "warnings": [], "nodes": {"a": STANDING}},
    },
}


class CheckTestCase(SynchronousTestCase):
    """A status that is well, and what a test changes in it."""

    def found(self, **changes: Any) -> list[Finding]:
        """What is found after changes, each of them a path with ``__`` between its names."""
        status: Any = copy.deepcopy(WELL)
        for path, value in changes.items():
            *names, last = [int(name) if name.isdigit() else name for name in path.split("__")]
            place = status
            for name in names:
                place = place[name]
            place[last] = value
        return findings(status)

    def one(self, **changes: Any) -> Finding:
        (finding,) = self.found(**changes)
        return finding


class FindingTests(CheckTestCase):
    """``findings``."""

    def test_nothing_is_wrong(self) -> None:
        self.assertEqual(self.found(), [])

    def test_callbacks_without_a_token(self) -> None:
        refused = self.one(callbacks__refused_lately=True)
        self.assertIn("are refused: 4 so far, from 10.9.9.9 and 1 more", refused.problem)
        self.assertIn("set api.callback_auth to optional", refused.to_do)
        self.assertIn("can post for any node", self.one(callbacks__unproven="taken").problem)
        self.assertEqual(self.found(callbacks__unproven="until the next stage"), [])

    def test_database(self) -> None:
        full = self.one(database__state="full", database__reason="no room", database__since=7.0)
        self.assertEqual((full.problem, full.since), ("the database is full: no room", 7.0))
        self.assertIn("make room", full.to_do)
        self.assertIn("start anew", self.one(database__state="broken").to_do)
        self.assertIn("/x.db", self.one(database__state="locked").to_do)
        self.assertIn("12 s", self.one(database__writing_seconds=12.3).problem)

    def test_chain(self) -> None:
        for reason, to_do in (
            ("halted: no block for 12 s", "second one"),
            ("not reachable: c:26657: refused", "can be reached from here"),
            ("catching up", "has caught up"),
            ("another one: c:26657: chain id x", "the right network"),
            ("the network has moved to PoC v2: nothing is sent", "poc.follow_chain: false"),
            ("the database is not open", "look into the log"),
        ):
            finding = self.one(chain__state="waiting", chain__reason=reason)
            self.assertEqual(finding.problem, f"nothing is sent: {reason}")
            self.assertIn(to_do, finding.to_do)
        one, other = (self.one(chain__reason=f"halted: no block for {seconds} s").key for seconds in (12, 13))
        self.assertEqual(one, other)

    def test_no_chain_means_that_nodes_are_not_driven_either(self) -> None:
        found = self.found(chain={"state": "not configured", "reason": "no chain is configured"})
        self.assertEqual([finding.id for finding in found], ["chain-not-configured", "not-driving"])
        self.assertIn("poc.follow_chain", self.one(chain__poc=None).problem)

    def test_a_missing_grant(self) -> None:
        for changes in (
            {"chain__problem": "authz 2: authorization not found"},
            {"chain__held": {"generated": "authz 2: authorization not found"}, "chain__reason": "held"},
        ):
            finding = self.one(**changes)
            self.assertIn("authorization not found", finding.problem)
            self.assertIn("have gonka1participant grant gonka1signer", finding.to_do)

    def test_chain_nodes(self) -> None:
        for standing, to_do in (("failing", "runs"), ("behind", "behind"), ("other_chain", "take it out")):
            node = {"name": "c:26657", "standing": standing, "last_problem": "why"}
            finding = self.one(chain__nodes=[node])
            self.assertIn("c:26657", finding.problem)
            self.assertIn(to_do, finding.to_do)

    def test_clock(self) -> None:
        for offset in (None, 5.0, -5.0):
            self.assertEqual(self.found(chain__clock_offset_seconds=offset), [])
        self.assertIn("5.1 s ahead of", self.one(chain__clock_offset_seconds=5.1).problem)
        self.assertIn("60 s behind", self.one(chain__clock_offset_seconds=-60.0).problem)

    def test_phases(self) -> None:
        self.assertIn("x failed", self.one(chain__poc__problem="x failed").problem)
        # The chain's own problem is told once.
        halted = "halted: no block for 12 s"
        self.assertEqual(len(self.found(chain__poc__problem=halted, chain__reason=halted)), 1)

    def test_in_poc_without_a_batch(self) -> None:
        text = "a: is to generate, and no batch came from it for {} s"
        one, other = (self.one(chain__poc__warnings=[text.format(seconds)]) for seconds in (60, 62))
        self.assertEqual(one.problem, text.format(60))
        self.assertIn("http://10.0.0.5:9100", one.to_do)
        self.assertEqual(one.key, other.key)

    def test_a_node_that_refuses_or_is_unreachable(self) -> None:
        problem = "a: state: Connection was refused by other side"
        finding = self.one(chain__poc__nodes__a__problem=problem)
        self.assertEqual(finding.problem, problem)
        self.assertIn("http://10.0.0.7:8080", finding.to_do)
        failed = {"command": "StopNodeCommand", "result": {"succeeded": False, "status": "UNKNOWN", "error": "a: why"}}
        found = self.found(chain__poc=None, nodes__0__last=failed)
        self.assertIn("a: why", [finding.problem for finding in found])
        self.assertEqual(self.found(chain__poc__nodes__a__problem=problem, nodes__0__enabled=False), [])

    def test_a_websocket_that_is_refused_for_long(self) -> None:
        websocket = {"state": "refused", "reason": "403: no"}
        finding = self.one(nodes__0__websocket=websocket, nodes__0__batches={"by_http": 1})
        self.assertEqual((finding.problem, finding.for_seconds), ("a: no WebSocket: 403: no", 30.0))

    def test_nodes_that_are_not_loaded(self) -> None:
        self.assertEqual(self.one(broker__problem="b: left out: why").problem, "b: left out: why")

    def test_admin_api(self) -> None:
        self.assertIn("its token is not encrypted", self.one(admin__host="0.0.0.0").problem)


class CallbackTests(CheckTestCase):
    """A callback URL that a node does not reach is told with what is known."""

    def unreached(self, url: str = "http://10.0.0.5:9100/v1/poc-batches", **changes: Any) -> list[str]:
        found = self.found(**{"nodes": [copy.deepcopy(SILENT)], "callbacks__url": url} | changes)
        unreached = [finding for finding in found if finding.key == (ProblemId.CALLBACKS_NEVER_SEEN, "a", "callbacks")]
        self.assertTrue(all("api.poc_callback_url" in finding.to_do for finding in unreached))
        return [finding.problem for finding in unreached]

    def test_what_is_known(self) -> None:
        for host, said in (
            ("127.0.0.1", "127.0.0.1 is the node itself, for the node"),
            ("localhost", "localhost is the node itself, for the node"),
            ("api", "api looks like the name of a compose service"),
        ):
            (problem,) = self.unreached(f"http://{host}:9100/v1/poc-batches")
            self.assertIn(f"has never delivered to http://{host}:9100", problem)
            self.assertIn("no node has delivered there since dapi started", problem)
            self.assertIn(said, problem)
        (problem,) = self.unreached("http://10.0.0.5:8000/v1/poc-batches")
        self.assertIn("the URL has port 8000, and dapi listens on 9100", problem)
        self.assertTrue(self.unreached()[0].endswith("since dapi started"))

    def test_others_that_reach_it_are_told(self) -> None:
        other = NODE | {"node_id": "b", "batches": {"by_http": 3}}
        (problem,) = self.unreached(nodes=[SILENT, other])
        self.assertIn("others have delivered there since dapi started: 1 nodes, such as b", problem)

    def test_not_of_a_node_that_has_another_way_or_nothing_to_deliver(self) -> None:
        for changes in (
            {"nodes__0__websocket": {"state": "open", "reason": None}},
            {"nodes__0__batches": {"by_http": 1}},
            {"nodes__0__enabled": False},
            {"chain__poc__nodes__a__current": "LOADING"},
            {"chain__poc__nodes__a__intended": "INFERENCE"},
        ):
            self.assertEqual(self.unreached(**changes), [], changes)

    def test_a_node_that_is_commanded_by_hand(self) -> None:
        self.assertEqual(len(self.unreached(chain__poc=None)), 1)
        stopped = {"command": "StopNodeCommand", "result": {"succeeded": True, "status": "STOPPED", "error": None}}
        self.assertEqual(self.unreached(chain__poc=None, nodes__0__last=stopped), [])
