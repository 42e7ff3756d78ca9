"""Advice on a restart where PoC v1 is followed, v2 is watched, or both."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.orchestration.restarts import Restarts
from dapi.phases.restart import RestartAdvice
from dapi.relay.api_answers import Epochs, StageWindow
from dapi.relay.knowledge import Knowledge
from tests.fake_broker import FakePhaseStatus


class RestartsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.phases = FakePhaseStatus()
        self.knowledge = Knowledge(Clock())
        self.knowledge.learn_epochs(Epochs(130, "", (StageWindow(100, 100, 160, 165, 185),), 500))

    def test_nothing_is_known(self) -> None:
        nothing = Restarts(None, None, False)
        self.assertEqual((nothing.of_dapi(), nothing.of_container()), (None, None))

    def test_v1_alone(self) -> None:
        restarts = Restarts(self.phases, None, False)
        self.assertEqual((restarts.of_dapi(), restarts.of_container()), (self.phases.advice, None))

    def test_both(self) -> None:
        advice = Restarts(self.phases, self.knowledge, True).of_dapi()
        assert advice is not None
        self.assertEqual((advice.safe, advice.safe_at), (False, 185))
        self.phases.advice = RestartAdvice(False, "the chain is in PoCGenerate", 0)
        for is_relayed in (False, True):
            restarts = Restarts(self.phases, self.knowledge, is_relayed)
            advice, container = restarts.of_dapi(), restarts.of_container()
            assert advice is not None
            assert container is not None
            self.assertTrue((advice.reason or "").startswith("the chain is in PoCGenerate"))
            self.assertEqual((advice.safe, "PoC v2" in (advice.reason or "")), (False, is_relayed))
            self.assertEqual((container.safe, container.safe_at), (False, 185))

    def test_while_the_chain_runs_v1_the_container_is_not_asked(self) -> None:
        self.phases.is_v1 = True
        self.knowledge.problems["epochs"] = "refused"
        restarts = Restarts(self.phases, self.knowledge, True)
        self.assertEqual(restarts.of_dapi(), self.phases.advice)
        container = restarts.of_container()
        assert container is not None
        self.assertFalse(container.safe)

    def test_v2_alone(self) -> None:
        self.assertEqual(Restarts(None, self.knowledge, False).of_dapi(), RestartAdvice(True))
