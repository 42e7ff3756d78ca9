"""The active stage of the simulated api container while a challenge is open (poc-v2.md, 'Challenges')."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.api.answers import Refused
from dapi.simulator.api.api import ApiState, SimulatedApi
from dapi.simulator.api.stages import Stage
from dapi.simulator.vllm.sender import callback_path, generated_body

REGULAR = Stage(100)
CHALLENGE = Stage(REGULAR.start + 1)


class ChallengeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.api = SimulatedApi(Clock(), nodes={1: "m"})
        self.api.state = ApiState.RUNNING
        self.api.stage = REGULAR
        self.api.active_challenge = CHALLENGE

    def take(self, stage: Stage) -> None:
        body = generated_body(stage.start, 1, [1])
        self.api.take_callback(callback_path("m", "generated").encode(), "application/json", body)

    def test_it_wins_over_the_regular_stage(self) -> None:
        self.api.height = CHALLENGE.start
        self.take(CHALLENGE)
        with self.assertRaises(Refused):
            self.take(REGULAR)

    def test_it_waits_while_votes_of_the_regular_stage_are_taken(self) -> None:
        self.api.height = REGULAR.validation_start
        with self.assertRaises(Refused) as caught:
            self.take(CHALLENGE)
        self.assertEqual(caught.exception.status, 503)
