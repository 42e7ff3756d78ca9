"""Windows, phases and duties are what the network's arithmetic says, to the block."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.phases.duty import Duty
from dapi.phases.phases import (
    ConfirmationEvent,
    EpochInfo,
    EpochParameters,
    Phase,
    PocStage,
    Window,
    confirmation_stage,
    regular_stage,
)

durations = st.integers(1, 2_000)


def parameters(stage: int, exchange: int, delay: int, validation: int) -> EpochParameters:
    return EpochParameters(
        epoch_length=17280,
        poc_stage_duration=stage,
        poc_exchange_duration=exchange,
        poc_validation_delay=delay,
        poc_validation_duration=validation,
    )


MAINNET = parameters(60, 5, 5, 20)
DEFAULT = parameters(10, 2, 2, 6)
END_TO_END = parameters(4, 1, 1, 4)
EVENT = ConfirmationEvent(epoch_index=7, trigger_height=500, generation_start=580, seed_block_hash="ab")

stages = st.builds(
    lambda values, start, confirms: (
        confirmation_stage(values, ConfirmationEvent(1, start, start + 10, "ab"))
        if confirms
        else regular_stage(values, 1, start)
    ),
    st.builds(parameters, durations, durations, durations, durations),
    st.integers(1, 2**40),
    st.booleans(),
)


class StageTests(SynchronousTestCase):
    def test_the_networks_own_table(self) -> None:
        # Its columns: mainnet genesis, code default, end-to-end test.
        for values, heights in (
            (MAINNET, (48, 60, 1, 65, 65, 81, 66, 85, 85)),
            (DEFAULT, (8, 10, 1, 12, 12, 16, 13, 18, 18)),
            (END_TO_END, (3, 4, 1, 5, 5, 8, 6, 9, 9)),
        ):
            stage = regular_stage(values, 3, 0)
            self.assertEqual(
                (
                    stage.generate_wind_down,
                    stage.generation_end,
                    stage.batches.first,
                    stage.batches.last,
                    stage.validation_start,
                    stage.validate_wind_down,
                    stage.validations.first,
                    stage.validations.last,
                    stage.inference_from,
                ),
                heights,
            )

    def test_confirmation(self) -> None:
        stage = confirmation_stage(DEFAULT, EVENT)
        self.assertEqual((stage.height, stage.epoch_index, stage.is_confirmation), (500, 7, True))
        self.assertEqual((stage.start, stage.generation_end), (580, 589))
        self.assertEqual((stage.batches, stage.validation_start), (Window(581, 591), 593))
        self.assertEqual((stage.validations, stage.inference_from), (Window(594, 598), 599))

    def test_each_kind_has_its_window(self) -> None:
        stage = regular_stage(DEFAULT, 1, 1000)
        self.assertEqual(stage.window(Kind.GENERATED), Window(1001, 1012))
        self.assertEqual(stage.window(Kind.VALIDATED), Window(1013, 1018))
        self.assertEqual(stage.window(Kind.SEED), Window(1000, 1018))
        # Nodes may be declared long before the stage in which they are to count.
        self.assertEqual(stage.window(Kind.HARDWARE), Window(0, 1018))

    def test_claims_are_paid_from_one_settlement_to_the_next(self) -> None:
        # The main network's: a claim is paid from block + 206 on, and settled again an epoch after + 205.
        values = msgspec.structs.replace(MAINNET, set_new_validators_delay=120)
        self.assertEqual(regular_stage(values, 3, 0).window(Kind.CLAIM), Window(206, 205 + 17280))

    def test_phases_block_by_block(self) -> None:
        stage = regular_stage(DEFAULT, 1, 100)
        phases = [stage.phase(height) for height in range(99, 120)]
        self.assertEqual(
            phases,
            [Phase.INFERENCE]
            + 8 * [Phase.GENERATE]
            + 4 * [Phase.GENERATE_WIND_DOWN]
            + 4 * [Phase.VALIDATE]
            + 2 * [Phase.VALIDATE_WIND_DOWN]
            + 2 * [Phase.INFERENCE],
        )

    def test_duties_block_by_block(self) -> None:
        # Mainnet leaves time to wait for the last delivery, until two blocks before the end of the exchange.
        stage = regular_stage(MAINNET, 1, 100)
        duties = [(stage.duty(height), stage.is_time_to_switch(height)) for height in range(99, 187)]
        self.assertEqual(
            duties,
            [(Duty.INFERENCE, False)]
            + 60 * [(Duty.GENERATE, False)]
            + 3 * [(Duty.GENERATE, True)]
            + 22 * [(Duty.VALIDATE, False)]
            + 2 * [(Duty.INFERENCE, False)],
        )
        self.assertEqual(stage.batches.last - 163, 2)

    def test_no_time_to_wait_where_the_exchange_is_short(self) -> None:
        for values in (DEFAULT, END_TO_END, parameters(10, 0, 2, 6)):
            stage = regular_stage(values, 1, 0)
            self.assertEqual(stage.duty(stage.generation_end - 1), Duty.GENERATE)
            self.assertEqual(stage.duty(stage.generation_end), Duty.VALIDATE)
            self.assertFalse(any(stage.is_time_to_switch(height) for height in range(30)))

    @given(stages, st.integers(-5, 10_000))
    def test_duties_come_in_order_and_never_come_back(self, stage: PocStage, offset: int) -> None:
        order = [(Duty.GENERATE, False), (Duty.GENERATE, True), (Duty.VALIDATE, False)]
        height = stage.start + offset
        before, after = ((stage.duty(at), stage.is_time_to_switch(at)) for at in (height, height + 1))
        if stage.is_under_way(height) and stage.is_under_way(height + 1):
            self.assertLessEqual(order.index(before), order.index(after))
        if not stage.is_under_way(height):
            self.assertEqual((before, stage.phase(height)), ((Duty.INFERENCE, False), Phase.INFERENCE))

    @given(stages)
    def test_order_of_a_stage(self, stage: PocStage) -> None:
        self.assertLessEqual(stage.start, stage.generate_wind_down)
        self.assertLessEqual(stage.generate_wind_down, stage.generation_end)
        self.assertLessEqual(stage.generation_end, stage.batches.last)
        self.assertLessEqual(stage.generation_end, stage.validation_start)
        self.assertEqual(stage.validations.first, stage.validation_start + 1)
        self.assertLessEqual(stage.validations.last, stage.inference_from)
        if stage.is_under_way(stage.validation_start):
            self.assertEqual(stage.duty(stage.validation_start), Duty.VALIDATE)


class EpochInfoTests(SynchronousTestCase):
    def info(self, height: int, *, index: int = 2, event: ConfirmationEvent | None = None) -> EpochInfo:
        return EpochInfo(height, index, 100, DEFAULT, 200, event)

    def test_stage_under_way(self) -> None:
        self.assertIs(self.info(99).stage_under_way(), None)
        for height in (100, 117):
            stage = self.info(height).stage_under_way()
            self.assertEqual(stage, regular_stage(DEFAULT, 2, 100))
        self.assertIs(self.info(118).stage_under_way(), None)

    def test_a_confirmation_is_under_way_from_its_generation_on(self) -> None:
        self.assertIs(self.info(579, event=EVENT).stage_under_way(), None)
        for height in (580, 598):
            stage = self.info(height, event=EVENT).stage_under_way()
            self.assertEqual(stage, confirmation_stage(DEFAULT, EVENT))
        self.assertIs(self.info(599, event=EVENT).stage_under_way(), None)

    def test_epoch_0_has_no_poc_and_is_shorter_than_the_others(self) -> None:
        # As on the main network: 17280 blocks less 16980.
        first = msgspec.structs.replace(DEFAULT, epoch_shift=16980)
        info = EpochInfo(105, 0, 0, first, 200, None)
        self.assertEqual((info.stages(), info.next_poc_start()), ([], 300))
        self.assertEqual(EpochInfo(305, 1, 300, first, 200, None).next_poc_start(), 300 + 17280)

    def test_next_poc(self) -> None:
        self.assertEqual(self.info(105).next_poc_start(), 100 + 17280)


class SituationTests(SynchronousTestCase):
    """A regular stage from 100 to 185 in an epoch of 17,280 blocks, and a confirmation that generates from 580 on."""

    def info(self, height: int, *, index: int = 7, confirms: bool = False) -> EpochInfo:
        return EpochInfo(height, index, 100, MAINNET, 0, EVENT if confirms else None)

    def situation(self, height: int, **changes: Any) -> tuple[Any, ...]:
        found = self.info(height, **changes).situation()
        self.assertEqual(found.height, height)
        return (found.epoch_index, found.phase, found.stage_height, found.is_confirmation, found.blocks_left)

    def test_a_regular_stage(self) -> None:
        cases = {
            100: (7, Phase.GENERATE, 100, False, 65),
            147: (7, Phase.GENERATE, 100, False, 18),
            148: (7, Phase.GENERATE_WIND_DOWN, 100, False, 17),
            164: (7, Phase.GENERATE_WIND_DOWN, 100, False, 1),
            # From the last block of the one window on, the other one's end counts.
            165: (7, Phase.VALIDATE, 100, False, 20),
            181: (7, Phase.VALIDATE_WIND_DOWN, 100, False, 4),
            184: (7, Phase.VALIDATE_WIND_DOWN, 100, False, 1),
            185: (7, Phase.INFERENCE, None, False, 17195),
            17379: (7, Phase.INFERENCE, None, False, 1),
            17381: (7, Phase.INFERENCE, None, False, 0),
        }
        self.assertEqual({height: self.situation(height) for height in cases}, cases)

    def test_a_confirmation(self) -> None:
        cases = {
            570: (7, Phase.INFERENCE, None, False, 10),
            580: (7, Phase.GENERATE, 500, True, 64),
            643: (7, Phase.GENERATE_WIND_DOWN, 500, True, 1),
        }
        self.assertEqual({height: self.situation(height, confirms=True) for height in cases}, cases)

    def test_which_stages_there_are(self) -> None:
        self.assertEqual(self.info(100, index=0).stages(), [])
        (first,) = self.info(100, index=1).stages()
        self.assertEqual((first.height, first.start, first.epoch_index, first.is_confirmation), (100, 100, 1, False))
        confirmation, regular = self.info(100, confirms=True).stages()
        self.assertEqual((confirmation.height, confirmation.start, confirmation.epoch_index), (500, 580, 7))
        self.assertEqual((confirmation.is_confirmation, regular.is_confirmation), (True, False))
