"""What the relay's state says is wrong."""

from __future__ import annotations

import copy
from typing import Any

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding
from dapi.relay.stage_watch import Trouble
from tests.unit.diagnosis.statuses import CheckTestCase

RELAY: dict[str, Any] = {
    "waiting": 0,
    "away": None,
    "passing": None,
    "silent_nodes": {},
    "held_count": 0,
    "held": [],
    "set_aside": [],
    "counts": {},
    "problems": {"questions": {}, "answers": {}, "fallen": [], "stalled": [], "loops": []},
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
            (ProblemId.RELAY_BROKE, {"loops": ["Forwarder broke"]}),
        ):
            (finding,) = self.relay(**changes)
            self.assertIs(finding.id, problem_id)
            self.assertTrue(finding.problem)
            self.assertTrue(finding.to_do)


class WatchTests(CheckTestCase):
    def test_each_kind_of_trouble_has_something_to_do(self) -> None:
        for trouble in Trouble:
            watch = {"troubles": [{"kind": str(trouble), "model": "m", "problem": "words"}], "questions": {}}
            (finding,) = self.found(poc_v2_watch=watch)
            self.assertEqual(finding.problem, "words")
            self.assertTrue(finding.to_do)

    def test_who_does_not_answer(self) -> None:
        watch = {"troubles": [], "questions": {"chain": "no answer", "state": "HTTP 500"}}
        chain, state = self.found(poc_v2_watch=watch)
        self.assertIn("poc_v2.chain_url", chain.to_do)
        self.assertIn("poc_v2.api_url", state.to_do)
        self.assertEqual(self.found(poc_v2_watch=None), [])
