"""What comes for no stage ends, as soon as no such stage can turn up any more."""

from __future__ import annotations

import json

import msgspec

from dapi.errors import QuotaError
from dapi.messages import Kind, State, Via
from dapi.messages.content_id import run_id
from dapi.outbox.comparison import Comparison
from dapi.outbox.outbox import OutboxEntry
from tests.unit.orchestration.conductor_case import KEY, START, TRIGGER, ConductorTestCase


class NoSuchStageTests(ConductorTestCase):
    def not_sent(self) -> list[str]:
        return [problem for problem in self.told() if "not sent" in problem]

    def test_past_heights_end_at_once_and_those_ahead_wait(self) -> None:
        for height in (START - 1, START + 1, START + 3, START + 4, START + 4 + 100):
            self.store(f"at-{height}", height, run="AB")
        self.move(START + 3)
        self.assertEqual(
            {height: self.state_of(f"at-{height}") for height in (START - 1, START + 1, START + 3, START + 4)},
            {**dict.fromkeys((START - 1, START + 1, START + 3), State.EXPIRED), START + 4: State.STORED},
        )
        self.assertEqual(self.state_of(f"at-{START + 4 + 100}"), State.EXPIRED)
        self.assertEqual(
            self.not_sent(), ["a: 1 messages are kept and not sent: the chain has told of no stage with their height"]
        )
        (line,) = self.log.lines(containing="expired")
        self.assertEqual(line, f"4 messages expired that no PoC stage was for: the chain is at block {START + 3}")
        self.move(START + 4)
        self.assertEqual((self.state_of(f"at-{START + 4}"), self.not_sent()), (State.EXPIRED, []))

    def test_one_that_came_before_the_first_look_becomes_real(self) -> None:
        run = run_id(f"AB{START}", KEY.public_key.hex())
        self.store("early", START, run=run)
        self.watcher.problem = "catching up"
        self.move(START + 3)
        self.assertEqual(self.state_of("early"), State.STORED)
        self.watcher.problem = None
        self.move(START + 3)
        self.assertEqual((self.state_of("early"), self.not_sent()), (State.STORED, []))

    def test_a_stage_that_has_not_begun_yet_is_one(self) -> None:
        # A confirmation is named by its trigger, blocks before its generation starts.
        self.rpc.seed_hash = ""
        self.store("confirming", TRIGGER, run="AB")
        self.move(TRIGGER + 1)
        self.assertEqual(self.state_of("confirming"), State.STORED)

    def test_what_dapi_itself_sends_is_compared_with_no_stage(self) -> None:
        self.store("own", START - 20)
        self.move(START + 3)
        self.assertEqual(self.state_of("own"), State.STORED)

    def test_the_next_stage_is_expected_before_its_nodes_begin(self) -> None:
        self.move(START - 1)
        comparison = Comparison(self.clock, self.database, max_messages=0)
        self.conductor.comparison = comparison
        self.successResultOf(comparison.look())
        entry = OutboxEntry("b", Kind.GENERATED, "a", START, 1, Via.HTTP, b"message", "run")
        self.assertRaises(QuotaError, comparison.admit, entry)
        # The turn breaks off before it has counted anew.
        self.rpc.failing = {"block"}
        self.move(START)
        comparison.admit(entry)

    def test_it_is_in_the_status(self) -> None:
        self.store("ahead", START + 50, run="AB")
        self.move(START + 3)
        shown = json.loads(msgspec.json.encode(self.phases.status()["not_of_their_stage"]))
        kept = {
            "height": None,
            "node_id": "a",
            "kind": "generated",
            "messages": 1,
            "bytes": 7,
            "has_others_nonces": False,
        }
        self.assertEqual(shown, {"kept": [kept], "refused": 0, "not_asked_for": 0})
