"""Whether dapi and the api container may be restarted, at each height of a stage of PoC v2."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.phases.restart import RestartAdvice
from dapi.relay.api_answers import Epochs, StageKind, StageWindow
from dapi.relay.knowledge import Knowledge
from dapi.relay.restart import container_advice, dapi_advice

STAGE = StageWindow(100, 100, 160, 165, 185)
NEXT = 500
LATE = ": what the nodes deliver meanwhile comes up to 30 s later, which may be too late"


class RestartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.knowledge = Knowledge(Clock())

    def at(self, height: int, *more: StageWindow) -> RestartAdvice:
        """What is said of a dapi that relays at a height."""
        self.knowledge.learn_epochs(Epochs(height, "", (STAGE, *more), NEXT))
        return dapi_advice(self.knowledge, is_relayed=True)

    def container(self, *, is_relayed: bool = False) -> str:
        """What is said of the container."""
        return container_advice(self.knowledge, is_relayed=is_relayed).reason or ""

    def test_a_stage_from_its_nearing_to_its_last_result(self) -> None:
        for height, reason in (
            (91, "stage 100 of PoC v2 begins in 9 blocks"),
            (100, f"stage 100 of PoC v2 takes artifacts until block 160{LATE}"),
            (160, f"stage 100 of PoC v2 takes artifacts until block 160{LATE}"),
            (161, "stage 100 of PoC v2 takes results from block 165 on"),
            (165, f"stage 100 of PoC v2 takes results until block 184{LATE}"),
            (184, f"stage 100 of PoC v2 takes results until block 184{LATE}"),
        ):
            self.assertEqual(self.at(height), RestartAdvice(False, reason, 0, 185))
        self.assertEqual(self.at(90), RestartAdvice(True, blocks_left=10))
        self.assertEqual(self.at(185), RestartAdvice(True, blocks_left=NEXT - 185))
        self.assertTrue(self.at(NEXT - 10).safe)
        self.assertEqual(
            self.at(NEXT - 9), RestartAdvice(False, "stage 500 of PoC v2 begins in 9 blocks", 0, NEXT + 85)
        )

    def test_what_a_restart_of_the_container_costs(self) -> None:
        self.at(130)
        self.assertIn("up to 5 s of them are in the container's memory alone, and would be lost", self.container())
        self.assertIn("memory alone would have to be sent again", self.container(is_relayed=True))
        self.at(162)
        self.assertIn("the container brings the weights of the nodes onto the chain", self.container())
        self.at(170)
        self.assertIn("the container keeps votes back for up to 30 s", self.container())
        self.at(200)
        self.assertEqual(container_advice(self.knowledge, is_relayed=False), RestartAdvice(True, blocks_left=300))

    def test_confirmations_and_challenges(self) -> None:
        confirmation = StageWindow(295, 300, 359, 364, 383, StageKind.CONFIRMATION)
        advice = self.at(296, confirmation)
        self.assertEqual(advice.reason, "stage 295 (confirmation) of PoC v2 begins in 4 blocks")
        self.assertEqual(advice.safe_at, 383)
        self.knowledge.learn_challenge(StageWindow(200, 200, 239, 240, 240, StageKind.CHALLENGE))
        advice = self.at(239)
        self.assertIn("stage 200 (challenge) of PoC v2 takes artifacts until block 239", advice.reason or "")
        self.assertEqual(advice.safe_at, 240)
        self.assertTrue(self.at(240).safe)

    def test_one_right_after_another(self) -> None:
        self.knowledge.learn_challenge(StageWindow(400, 400, 491, 492, 492, StageKind.CHALLENGE))
        self.assertEqual(self.at(450).safe_at, NEXT + 85)

    def test_where_it_is_not_known(self) -> None:
        reason = "where the chain is, is not known now"
        self.assertEqual(dapi_advice(self.knowledge, is_relayed=True), RestartAdvice(False, reason))
        self.at(200)
        self.knowledge.problems["epochs"] = "no answer"
        for advise in (dapi_advice, container_advice):
            self.assertEqual(advise(self.knowledge, is_relayed=True), RestartAdvice(False, f"{reason}: no answer"))

    def test_a_container_that_does_not_tell_when_the_next_stage_begins(self) -> None:
        self.knowledge.learn_epochs(Epochs(200, "", (STAGE,), STAGE.start))
        self.assertEqual(dapi_advice(self.knowledge, is_relayed=True), RestartAdvice(True))

    def test_nothing_passes_through_a_dapi_that_only_watches(self) -> None:
        for known in (False, True):
            if known:
                self.at(130)
            self.assertEqual(dapi_advice(self.knowledge, is_relayed=False), RestartAdvice(True))
