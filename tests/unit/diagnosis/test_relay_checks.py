"""What the relay's state says is wrong."""

from __future__ import annotations

import copy
from typing import Any

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding
from dapi.relay.stage_watch import Trouble
from tests.unit.diagnosis.statuses import NO_CHAIN, CheckTestCase

RELAY: dict[str, Any] = {
    "waiting": 0,
    "away": None,
    "passing": None,
    "silent_nodes": {},
    "held_count": 0,
    "held": [],
    "set_aside": [],
    "counts": {},
    "problems": {"questions": {}, "answers": {}, "fallen": [], "stalled": [], "unloaded": None, "loops": []},
}


class RelayTests(CheckTestCase):
    def relay(self, **changes: Any) -> list[Finding]:
        relay = copy.deepcopy(RELAY)
        problems = relay["problems"]
        for name, value in changes.items():
            (problems if name in problems else relay)[name] = value
        return self.found(relay=relay)

    def test_all_is_well_and_without_a_relay_nothing_is_looked_for(self) -> None:
        self.assertEqual(self.relay(), [])
        self.assertEqual(self.found(relay=None), [])

    def test_a_host_of_poc_v2_needs_no_chain_and_no_commands_of_dapi(self) -> None:
        moved = {"state": "moved", "trouble": "moved", "reason": "the network has moved to PoC v2", "poc": None}
        for chain in (NO_CHAIN, moved):
            self.assertEqual(self.found(chain=chain, relay=RELAY), [])
            self.assertEqual(self.found(chain=chain, poc_v2_watch=WATCH), [])
            self.assertEqual(len(self.found(chain=chain)), 2)
        unreachable = {"state": "unreachable", "trouble": "unreachable", "reason": "no answer", "poc": None}
        (finding,) = self.found(chain=unreachable, relay=RELAY)
        self.assertIs(finding.id, ProblemId.CHAIN_UNREACHABLE)

    def test_away(self) -> None:
        (short,) = self.relay(away={"seconds": 5.0, "reason": "refused"}, waiting=7)
        self.assertEqual((short.id, short.severity), (ProblemId.RELAY_AWAY, Severity.WARNING))
        self.assertIn("7 callbacks wait", short.problem)
        (long,) = self.relay(away={"seconds": 40.0, "reason": "refused"})
        self.assertEqual(long.severity, Severity.CRITICAL)

    def test_each_kind(self) -> None:
        held = [{"reason": "none of the host's nodes runs its model"}]
        for problem_id, changes in (
            (ProblemId.RELAY_PASSING, {"passing": "the disk is full"}),
            (ProblemId.RELAY_NODE_SILENT, {"silent_nodes": {"node1": 31.0}}),
            (ProblemId.RELAY_HELD, {"held": held, "held_count": 1}),
            (ProblemId.RELAY_SET_ASIDE, {"set_aside": [{"reason": "HTTP 400: no"}]}),
            (ProblemId.RELAY_MISROUTED, {"answers": {"MISROUTED": "HTTP 404"}}),
            (ProblemId.RELAY_UNKNOWN_NODE, {"answers": {"UNKNOWN_NODE": "HTTP 400"}}),
            (ProblemId.RELAY_BROKE, {"answers": {"UNREADABLE": "no such file"}}),
            (ProblemId.RELAY_REFUSED, {"answers": {"AGAIN": "HTTP 503"}}),
            (ProblemId.RELAY_NOT_COUNTED, {"stalled": ["825 of 1,250"]}),
            (ProblemId.RELAY_FALLEN, {"fallen": ["132"]}),
            (ProblemId.RELAY_CANNOT_ASK, {"questions": {"epochs": "no answer"}}),
            (ProblemId.RELAY_BROKE, {"unloaded": "Permission denied"}),
            (ProblemId.RELAY_BROKE, {"loops": ["Forwarder broke"]}),
        ):
            (finding,) = self.relay(**changes)
            self.assertIs(finding.id, problem_id)
            self.assertTrue(finding.problem)
            self.assertTrue(finding.to_do)


WATCH: dict[str, Any] = {
    "troubles": [],
    "questions": {},
    "nodes": [],
    "clock_offset_seconds": None,
    "is_generating": False,
}


class WatchTests(CheckTestCase):
    def watch(self, relay: dict[str, Any] | None = None, **changes: Any) -> list[Finding]:
        return self.found(poc_v2_watch={**WATCH, **changes}, relay=relay)

    def test_each_kind_of_trouble_has_something_to_do(self) -> None:
        for trouble in Trouble:
            (finding,) = self.watch(
                troubles=[{"kind": str(trouble), "height": 5, "model": "m", "problem": "words"}],
            )
            self.assertEqual(finding.problem, "words")
            self.assertTrue(finding.to_do)

    def test_who_does_not_answer(self) -> None:
        questions = {"chain": "no answer", "votes": "too long", "state": "HTTP 500"}
        chain, votes, state = self.watch(questions=questions)
        self.assertIn("poc_v2.chain_url", chain.to_do)
        self.assertIn("poc_v2.chain_url", votes.to_do)
        self.assertIn("poc_v2.api_url", state.to_do)
        self.assertEqual({each.severity for each in (chain, votes, state)}, {Severity.WARNING})
        (grave,) = self.watch(questions={"epochs": "no answer"}, is_generating=True)
        self.assertEqual(grave.severity, Severity.CRITICAL)
        self.assertEqual(self.watch(relay=RELAY, questions={"state": "HTTP 500"}), [], "the relay tells it")
        self.assertEqual(self.found(poc_v2_watch=None), [])

    def test_the_clock(self) -> None:
        watch = {**WATCH, "clock_offset_seconds": -61.0}
        found = self.found(chain=NO_CHAIN, nodes=[], poc_v2_watch=watch)
        (finding,) = [finding for finding in found if finding.id is ProblemId.CLOCK_OFF]
        self.assertIn("61 s behind", finding.problem)
        self.assertEqual(self.watch(clock_offset_seconds=-61.0), [], "the chain of v1 tells it")

    def test_a_callback_url_that_a_node_cannot_reach(self) -> None:
        nodes = [
            {"node_id": "near", "host": "127.0.0.1", "status": "IDLE"},
            {"node_id": "beside", "host": "inference", "status": "IDLE"},
            {"node_id": "far", "host": "10.0.0.7", "status": "IDLE"},
        ]
        for url, names in (
            ("http://127.0.0.1:9100/k/(hidden)/v1/poc-batches", ["beside", "far"]),
            ("http://dapi:9100/k/(hidden)/v1/poc-batches", ["far"]),
            ("http://10.0.0.5:9100/v1/poc-batches", []),
        ):
            changes = {"nodes": [], "callbacks__url": url, "poc_v2_watch": {**WATCH, "nodes": nodes}}
            found = self.found(**changes)
            self.assertEqual([finding.node_id for finding in found], names, url)
            for finding in found:
                self.assertIs(finding.id, ProblemId.WATCH_CALLBACK_URL)
            self.assertEqual(self.found(**changes, callbacks__is_url_set=False), [], "it is not known what it is told")
