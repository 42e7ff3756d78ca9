"""Windows are what the network's arithmetic says, to the block."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.phases import EpochParameters, PocStage, Window, confirmation_stage, regular_stage
from dapi.messages import Kind

durations = st.integers(0, 20_000)


def parameters(stage: int, exchange: int, delay: int, validation: int) -> EpochParameters:
    return EpochParameters(
        epoch_length=17280,
        poc_stage_duration=stage,
        poc_exchange_duration=exchange,
        poc_validation_delay=delay,
        poc_validation_duration=validation,
        set_new_validators_delay=1,
    )


class WindowTests(SynchronousTestCase):
    def test_worked_examples(self) -> None:
        # The columns of the network's table: mainnet genesis, code default, end-to-end test.
        for durations_, batches, validations in (
            ((60, 5, 5, 20), Window(1, 65), Window(66, 85)),
            ((10, 2, 2, 6), Window(1, 12), Window(13, 18)),
            ((4, 1, 1, 4), Window(1, 5), Window(6, 9)),
        ):
            stage = regular_stage(parameters(*durations_), 0)
            self.assertEqual((stage.batches, stage.validations), (batches, validations))

    def test_confirmation(self) -> None:
        stage = confirmation_stage(parameters(10, 2, 2, 6), trigger_height=500, generation_start=580)
        self.assertEqual(stage, PocStage(500, Window(581, 591), Window(594, 598)))

    def test_each_kind_has_its_window(self) -> None:
        stage = regular_stage(parameters(10, 2, 2, 6), 1000)
        self.assertEqual(stage.window(Kind.GENERATED), Window(1001, 1012))
        self.assertEqual(stage.window(Kind.VALIDATED), Window(1013, 1018))

    @given(st.integers(1, 2**40), durations, durations, durations, durations)
    def test_a_window_moves_with_its_start_and_keeps_its_length(
        self, start: int, stage: int, exchange: int, delay: int, validation: int
    ) -> None:
        values = parameters(stage, exchange, delay, validation)
        here, at_zero = regular_stage(values, start), regular_stage(values, 0)
        self.assertEqual(here.batches.last - here.batches.first + 1, stage + exchange)
        self.assertEqual(here.validations.last - here.validations.first + 1, validation)
        self.assertEqual(here.validations.first - at_zero.validations.first, start)
