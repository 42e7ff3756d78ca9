"""Every transition that is drawn for a participant and for a node is walked, and the others are refused."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import ProofBatch
from dapi.orchestration.assignments import (
    CALLS_AT_ONCE,
    MAX_EARLY_VERDICTS,
    TRIES,
    Assignments,
    Decisions,
    NodeState,
    Offer,
    Progress,
)
from tests.chain_tools import Key

KEYS = [Key(seed) for seed in range(1, 6)]
SILENT_SECONDS, RETRY_SECONDS = 60.0, 4.0


def batch(key: Key, nonce: int = 1) -> ProofBatch:
    return ProofBatch(
        public_key=key.public.hex(), block_hash="AB", block_height=10, nonces=[nonce], dist=[0.5], node_num=0
    )


class AssignmentsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.address = KEYS[0].address
        self.assignments = self.make()

    def make(self, keys: list[Key] = KEYS[:1]) -> Assignments:
        assignments = Assignments(lambda: RETRY_SECONDS, SILENT_SECONDS)
        assignments.add(batch(key) for key in keys)
        return assignments

    def offer(self, *present: str) -> Offer:
        (offer,) = self.decide(*present or ("a",)).offers
        return offer

    def decide(self, *present: str, beginning: object = "first") -> Decisions:
        """Have it decided for nodes that have not begun anew, unless they have another beginning."""
        return self.assignments.decide(dict.fromkeys(present, beginning), self.now)

    def hold(self, node_id: str = "a") -> Offer:
        """Have the node take the participant."""
        offer = self.offer(node_id)
        self.assignments.accepted(offer, self.now)
        return offer

    def lose(self) -> list[str]:
        """Have all nodes be away."""
        return self.decide().warnings

    def verdict(self) -> None:
        self.assignments.record_verdict(self.address, self.now)

    def progress(self) -> Progress:
        return self.assignments._participants[self.address].progress

    def state(self, node_id: str = "a") -> NodeState:
        return self.assignments._nodes[node_id].state


class ParticipantTests(AssignmentsTestCase):
    def bring_to(self, progress: Progress) -> Offer:
        """Begin anew with a participant that is there; return its last offer."""
        self.now += 1000
        self.assignments = self.make()
        offer = self.offer()
        match progress:
            case Progress.WAITING:
                self.assignments.refused(offer)
            case Progress.HELD:
                self.assignments.accepted(offer, self.now)
            case Progress.ABANDONED:
                self.assignments.accepted(offer, self.now)
                for _ in range(TRIES - 1):
                    self.lose()
                    self.hold()
                self.lose()
            case Progress.ANSWERED:
                self.verdict()
        self.assertIs(self.progress(), progress)
        return offer

    def test_every_event_in_every_state(self) -> None:
        events: dict[str, Callable[[Offer], object]] = {
            "offer": lambda offer: self.decide("a", "b"),
            "accepted": lambda offer: self.assignments.accepted(offer, self.now),
            "refused": lambda offer: self.assignments.refused(offer),
            "node lost": lambda offer: self.lose(),
            "verdict": lambda offer: self.verdict(),
        }
        drawn = {
            (Progress.WAITING, "offer"): Progress.OFFERED,
            (Progress.OFFERED, "accepted"): Progress.HELD,
            (Progress.OFFERED, "refused"): Progress.WAITING,
            (Progress.HELD, "node lost"): Progress.WAITING,
            **{(progress, "verdict"): Progress.ANSWERED for progress in Progress},
        }
        for progress in Progress:
            for event, happen in events.items():
                offer = self.bring_to(progress)
                is_reply = event in ("accepted", "refused")
                # A verdict may come before the reply.
                if is_reply and progress not in (Progress.OFFERED, Progress.ANSWERED):
                    self.assertRaises(RuntimeError, happen, offer)
                else:
                    happen(offer)
                self.assertIs(self.progress(), drawn.get((progress, event), progress), (progress, event))

    def test_abandoned_when_so_many_nodes_were_lost(self) -> None:
        for number in range(1, TRIES + 1):
            self.hold(f"node{number}")
            (warning,) = self.lose()
            count = "0 unanswered participants go to others, 1" if number == TRIES else "1 unanswered"
            self.assertTrue(warning.startswith(f"node{number}: does not validate any more; {count}"), warning)
        self.assertIs(self.progress(), Progress.ABANDONED)
        self.assertEqual(self.decide("a").offers, [])
        self.assertEqual(self.assignments.unanswered, 1)

    def test_a_round_of_refusals_ends_in_a_pause(self) -> None:
        for _ in ("a", "b"):
            self.assignments.refused(self.offer("a", "b"))
        for _ in range(2):
            self.assertEqual(self.decide("a", "b").offers, [])
        self.now += RETRY_SECONDS
        self.assertEqual(self.offer("a", "b").address, self.address)

    def test_what_waits_is_offered_in_turn_while_nodes_are_free(self) -> None:
        self.assignments = self.make(KEYS)
        offers = self.decide("a", "b").offers
        self.assertEqual([offer.address for offer in offers], [key.address for key in KEYS[: 2 * CALLS_AT_ONCE]])
        self.assertEqual([offer.node_id for offer in offers], ["a", "b", "a", "b"])
        self.assertEqual(self.decide("a", "b").offers, [])

    def test_a_batch_is_replaced_until_a_node_took_it(self) -> None:
        self.assignments.add([batch(KEYS[0], nonce=2)])
        offer = self.hold()
        self.assertEqual(offer.batch.nonces, [2])
        self.lose()
        self.assignments.add([batch(KEYS[0], nonce=3)])
        self.assertEqual(self.offer("b").batch.nonces, [2])

    def test_verdicts_may_come_before_the_participant(self) -> None:
        self.assignments = self.make([])
        for key in KEYS[:2]:
            self.assignments.record_verdict(key.address, self.now)
        self.assignments.add([batch(key) for key in KEYS[:3]])
        self.assertEqual(self.offer().address, KEYS[2].address)
        self.assertEqual(self.assignments.unanswered, 1)

    def test_verdicts_on_strangers_are_bounded(self) -> None:
        for number in range(MAX_EARLY_VERDICTS + 5):
            self.assignments.record_verdict(f"stranger{number}", self.now)
        self.assertEqual(len(self.assignments._early_verdicts), MAX_EARLY_VERDICTS)


class NodeTests(AssignmentsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.hold()

    def examine(self, node_id: str = "a") -> None:
        """Have the node be silent until it is examined."""
        self.now += SILENT_SECONDS
        self.assertEqual(self.decide(node_id).examine, [node_id])
        self.assertIs(self.state(), NodeState.EXAMINED)

    def bar(self) -> None:
        self.examine()
        warning = self.assignments.examined("a", self.now, is_loading=False)
        self.assertIn("a: no verdict for 60 s: has to be restarted; 1 unanswered", str(warning))
        self.assertIs(self.state(), NodeState.BARRED)

    def test_not_examined_before_it_is_silent_nor_twice(self) -> None:
        self.now += SILENT_SECONDS - 1
        self.assertEqual(self.decide("a").examine, [])
        self.now -= SILENT_SECONDS - 1
        self.examine()
        self.assertEqual(self.decide("a"), ([], [], []))

    def test_an_examined_node_that_loads_is_active_again(self) -> None:
        self.examine()
        self.assertIsNone(self.assignments.examined("a", self.now, is_loading=True))
        self.assertIs(self.state(), NodeState.ACTIVE)
        self.assertEqual(self.assignments.decide({"a": "first"}, self.now + SILENT_SECONDS - 1).examine, [])

    def test_an_examined_node_that_answers_is_active_again(self) -> None:
        self.examine()
        self.verdict()
        self.assertIsNone(self.assignments.examined("a", self.now, is_loading=False))
        self.assertIs(self.state(), NodeState.ACTIVE)

    def test_a_barred_node_gets_nothing_until_it_was_away_or_long_enough_silent(self) -> None:
        for seconds, present in ((0.0, ()), (SILENT_SECONDS, ("a",))):
            self.bar()
            self.assertEqual(self.decide("a"), ([], [], []))
            self.now += seconds
            self.decide(*present)
            self.assertIs(self.state(), NodeState.ACTIVE)
            if not present:
                self.hold()

    def test_a_node_that_begins_anew_has_lost_what_it_held(self) -> None:
        (warning,) = self.decide("a", beginning="second").warnings
        self.assertTrue(warning.startswith("a: began to validate anew; 1 unanswered"), warning)
        self.assertIs(self.progress(), Progress.OFFERED)

    def test_what_a_node_took_before_it_began_anew_is_lost(self) -> None:
        for beginning in ("second", None):
            self.assignments = self.make()
            offer = self.offer("a")
            self.decide(*("a",) if beginning else (), beginning=beginning)
            self.assignments.accepted(offer, self.now)
            self.assertIs(self.progress(), Progress.WAITING)
            self.assertEqual(self.assignments.status()["nodes"]["a"]["unanswered"], 0)

    def test_a_barred_node_that_begins_anew_is_active(self) -> None:
        self.bar()
        self.assertEqual(len(self.decide("a", beginning="second").offers), 1)
        self.assertIs(self.state(), NodeState.ACTIVE)

    def test_reasons(self) -> None:
        self.assertEqual(self.assignments.reasons(), ["1 were not answered by a"])
        self.lose()
        self.assertEqual(self.assignments.reasons(), ["1 waited for a node that takes them"])
        for _ in range(TRIES - 1):
            self.hold()
            self.lose()
        self.assertEqual(self.assignments.reasons(), ["1 were taken 5 times without a verdict"])
        self.verdict()
        self.assertEqual(self.assignments.reasons(), [])

    def test_rather_a_node_that_has_not_lost_the_participant(self) -> None:
        self.bar()
        self.decide()
        self.assertEqual(self.offer("a", "b").node_id, "b")
