"""What the page shows of a status, and what has changed between two of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.server.page.live import LOOK_SECONDS
from dapi.server.page.view import View, patch, view
from tests.page_data import POC_V2, PROBLEM, node, status

RELAY_FIELDS = ("kept", "waiting", "held", "away")
ADVICE = {"safe": True, "reason": None, "blocks_left": 210}


def patched(before: View, change: View) -> View:
    """Do what the page does with a patch."""
    nodes = dict(before["nodes"])
    for node_id, fields in change.get("nodes", {}).items():
        if fields is None:
            del nodes[node_id]
        else:
            nodes[node_id] = nodes.get(node_id, {}) | fields
    return before | change | {"nodes": nodes}


class ViewTests(SynchronousTestCase):
    def test_a_row(self) -> None:
        row = view(status(), ADVICE)["nodes"]["node2"]
        self.assertEqual(("GENERATE", "GENERATING", "open"), (row["duty"], row["does"], row["socket"]))
        self.assertEqual((6, 3, 1, 0), (row["by_websocket"], row["by_http"], row["doubled"], row["errors"]))
        self.assertEqual((1_800_000_000.0, 4.0, 9.5), (row["last_at"], row["p50_ms"], row["p99_ms"]))

    def test_all_kinds_of_errors_count(self) -> None:
        websocket = node(1)["websocket"] | {"bad_messages": 2, "errors": 3}
        troubled = node(1, websocket=websocket, batches=node(1)["batches"] | {"not_stored": 4})
        self.assertEqual(9, view(status(0) | {"nodes": [troubled]}, None)["nodes"]["node1"]["errors"])

    def test_without_a_chain(self) -> None:
        failed = {"result": {"succeeded": False, "error": "refused"}, "command": "StopNodeCommand", "at": 1.0}
        alone = status(
            chain={"state": "not configured", "reason": "no chain"}, nodes=[node(1, last=failed, deliveries=None)]
        )
        shown = view(alone, None)
        self.assertEqual((None, None), (shown["restart"], shown["situation"]))
        self.assertEqual("refused", shown["nodes"]["node1"]["problem"])
        self.assertIsNone(shown["nodes"]["node1"]["p99_ms"])

    def test_poc_v2(self) -> None:
        self.assertIsNone(view(status(), None)["poc_v2"])
        shown = view(status(**POC_V2), None)["poc_v2"]
        self.assertEqual((40, 3, 5, "Connection was refused"), tuple(shown["relay"][name] for name in RELAY_FIELDS))
        self.assertEqual([1260, None], [stage["handed_on"] for stage in shown["stages"]])
        alone = view(status(poc_v2_watch=POC_V2["poc_v2_watch"], relay=None), None)["poc_v2"]
        self.assertIsNone(alone["relay"])

    def test_every_value_is_json(self) -> None:
        shown = view(status(problems=[PROBLEM]), ADVICE)
        self.assertEqual(shown, json.loads(json.dumps(shown)))


class PatchTests(SynchronousTestCase):
    def check(self, before: View, after: View) -> dict[str, Any]:
        change = patch(before, after)
        self.assertEqual(after, patched(before, change))
        return change

    def test_nothing(self) -> None:
        self.assertEqual({}, self.check(view(status(), ADVICE), view(status(), ADVICE)))

    def test_a_field_of_one_node(self) -> None:
        later = status()
        later["nodes"][1]["batches"]["by_http"] = 4
        change = self.check(view(status(), ADVICE), view(later, ADVICE))
        self.assertEqual({"nodes": {"node2": {"by_websocket": 5, "by_http": 4}}}, change)

    def test_nodes_that_come_and_go(self) -> None:
        change = self.check(view(status(2), ADVICE), view(status(nodes=[node(2), node(3)]), ADVICE))
        self.assertIsNone(change["nodes"]["node1"])
        self.assertEqual("http://10.0.0.3:8080", change["nodes"]["node3"]["url"])

    def test_all_else(self) -> None:
        later = status(problems=[PROBLEM], batches=None)
        change = self.check(view(status(), ADVICE), view(later, None))
        self.assertEqual({"problems", "batches", "restart"}, set(change))

    def test_a_thousand_nodes_need_less_than_20_kb_a_second(self) -> None:
        """Each node delivers every 5 s; each delivery changes a count, the time, and maybe how fast acks are."""
        before, later = status(1000), status(1000)
        for each in later["nodes"][: int(1000 * LOOK_SECONDS / 5)]:
            each["batches"]["generated"] += 1
            each["deliveries"] = {"last_at": 1_800_000_005.1, "p50_ms": 4.1, "p99_ms": 9.7}
        change = self.check(view(before, ADVICE), view(later, ADVICE))
        self.assertLess(len(json.dumps(change, separators=(",", ":"))) / LOOK_SECONDS, 20_000)
