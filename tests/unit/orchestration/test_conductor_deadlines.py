"""What is late is warned of by the conductor, and expires when its window has ended."""

from __future__ import annotations

from dapi.messages import State, epochs_pb2
from dapi.phases.phases import Phase
from dapi.submission.choice import Room
from tests.submissions import choose, put_in_flight
from tests.unit.orchestration.conductor_case import (
    EXCHANGE_END,
    LENGTH,
    START,
    VALIDATION_END,
    ConductorTestCase,
)


class DeadlineTests(ConductorTestCase):
    def test_what_missed_its_window_expires(self) -> None:
        self.store("late")
        self.move(EXCHANGE_END - 1)
        self.assertEqual(self.state_of("late"), State.STORED)
        self.move(EXCHANGE_END)
        self.assertEqual(self.state_of("late"), State.EXPIRED)
        self.assertIn(f"1 generated messages of stage {START} expired", self.lines()[-1])

    def test_a_warning_when_three_blocks_are_left(self) -> None:
        self.store("late")
        self.move(EXCHANGE_END - 4)
        self.clock.advance(16)
        self.assertEqual(self.warnings_of("generated"), [])
        for left in (3, 2, 1):
            self.move(EXCHANGE_END - left)
            (warning,) = self.warnings_of("generated")
            self.assertIn(f"{left} blocks are left", warning)
        self.move(EXCHANGE_END)
        self.assertEqual(self.warnings_of("generated"), [])

    def test_a_warning_at_once_when_the_seed_is_late(self) -> None:
        self.move(START)
        self.assertEqual(self.warnings_of("seed"), [])
        self.clock.advance(16)
        self.move(START + 3)
        (warning,) = self.warnings_of("seed")
        self.assertIn("without its seed the stage counts nothing", warning)

    def warnings_of(self, kind: str) -> list[str]:
        """The warnings about messages of a kind; nobody sends the seed here."""
        return [warning for warning in self.told() if warning.startswith(kind)]

    def test_what_is_in_a_transaction_is_warned_of_when_it_is_old_and_never_expired(self) -> None:
        self.store("late")
        (message,) = self.successResultOf(choose(self.submissions, START + 1, Room(10_000, 100)))
        self.successResultOf(put_in_flight(self.submissions, [message.in_flight()], "AB" * 32, 7, START + 1))
        self.move(EXCHANGE_END - 3)
        self.assertEqual(self.warnings_of("generated"), [])
        self.clock.advance(21)
        self.move(EXCHANGE_END - 2)
        self.assertEqual(len(self.warnings_of("generated")), 1)
        self.move(EXCHANGE_END + 1)
        self.assertEqual(self.state_of("late"), State.IN_FLIGHT)
        self.assertNotIn("expired", str(self.lines()))

    def test_a_stage_that_the_chain_never_told_of_is_left_to_the_submitter(self) -> None:
        self.store("odd", 77)
        self.move(START + 1)
        self.assertEqual(self.state_of("odd"), State.STORED)

    def test_blocks_left(self) -> None:
        for height, phase, left in (
            (START, Phase.GENERATE, 65),
            (EXCHANGE_END, Phase.VALIDATE, 20),
            (VALIDATION_END, Phase.INFERENCE, LENGTH - 85),
        ):
            self.move(height)
            situation = self.situation()
            self.assertEqual((situation.phase, situation.blocks_left), (phase, left))

    def test_no_restart_where_the_chain_could_not_be_asked(self) -> None:
        self.move(VALIDATION_END)
        self.assertIs(self.phases.restart_advice().safe, True)
        self.rpc.failing = {"EpochInfo"}
        # PoC has begun meanwhile, as far as anybody knows.
        self.move(START + LENGTH)
        advice = self.phases.restart_advice()
        self.assertEqual((advice.safe, advice.blocks_left), (False, None))
        self.assertIn("EpochInfo: no answer", advice.reason)
        self.rpc.failing = set()
        self.retry()
        self.assertIn("PoCGenerate", self.phases.restart_advice().reason)

    def test_no_restart_right_before_the_first_poc_of_a_chain(self) -> None:

        def be_in_epoch_0(info: epochs_pb2.QueryEpochInfoResponse) -> None:
            info.latest_epoch.Clear()
            info.params.epoch_params.epoch_shift = LENGTH - START

        self.rpc.govern = be_in_epoch_0
        for height, is_safe in ((START - 10, True), (START - 9, False), (START, False)):
            self.move(height)
            advice = self.phases.restart_advice()
            self.assertEqual((advice.safe, advice.blocks_left), (is_safe, START - height))

    def test_no_restart_right_before_poc(self) -> None:
        self.move(START + LENGTH - 9)
        self.assertEqual(self.phases.restart_advice().blocks_left, 9)
        self.assertIs(self.phases.restart_advice().safe, False)
        self.move(START + LENGTH)
        self.assertIs(self.phases.restart_advice().safe, False)
