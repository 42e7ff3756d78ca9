"""The chain's epochs, as pure functions of their parameters and a height.

The regular PoC of an epoch starts at the height P. Nodes generate from P on, and generation ends at
G = P + stage duration. The chain accepts generated batches in the blocks P + 1 … G + exchange. Validation starts at
V = G + delay. The chain accepts verdicts in the blocks V + 1 … V + validation, and at V + validation the nodes go back
to inference. A confirmation PoC ends generation and validation one block earlier, and its delay begins at the end of
the exchange. New validators are set ``set_new_validators_delay`` blocks after V + validation; from the next block on
the epoch is in force, and the chain pays for the one before. Governance may change the durations at any time, so the
Conductor asks for them at each block. Source: docs/protocol/chain.md, 'Epochs and phases', 'Confirmation PoC' and
'Claims'.
"""

from __future__ import annotations

import enum

import msgspec

from dapi.messages import Kind
from dapi.phases.duty import Duty

# All nodes validate from so many blocks before the end of the exchange window on: what comes last needs time, too.
_BLOCKS_LEFT_AT_THE_SWITCH = 2

# Never closed, as far as heights go.
_ALWAYS_OPEN = 2**62


class Phase(enum.StrEnum):
    """Where the chain is in its epoch, in the network's own words."""

    INFERENCE = "Inference"
    GENERATE = "PoCGenerate"
    GENERATE_WIND_DOWN = "PoCGenerateWindDown"
    VALIDATE = "PoCValidate"
    VALIDATE_WIND_DOWN = "PoCValidateWindDown"


class Window(msgspec.Struct, frozen=True):
    """The first and the last block in which the chain accepts a message."""

    first: int
    last: int


_ALWAYS = Window(0, _ALWAYS_OPEN)


class PocStage(msgspec.Struct, frozen=True, kw_only=True):
    """One PoC, regular or confirmation; all numbers but ``epoch_index`` are heights.

    Its messages carry ``height`` as their start height. Nodes generate from ``start`` on until ``generation_end``, get
    batches to validate from ``validation_start`` on, and serve inference again from ``inference_from`` on. The two
    ``wind_down`` only name phases. ``claims`` is when the chain pays for the epoch before; a confirmation PoC, and a
    stage that an earlier version recorded, say nothing about it.
    """

    height: int
    epoch_index: int
    is_confirmation: bool
    start: int
    generate_wind_down: int
    generation_end: int
    batches: Window
    validation_start: int
    validate_wind_down: int
    validations: Window
    inference_from: int
    claims: Window = _ALWAYS

    def window(self, kind: Kind) -> Window:
        """Return the window for messages of this kind.

        Seeds and declared nodes count when the stage's weights are computed; nodes may be declared long before.
        """
        match kind:
            case Kind.GENERATED:
                return self.batches
            case Kind.VALIDATED:
                return self.validations
            case Kind.SEED:
                return Window(self.start, self.validations.last)
            case Kind.HARDWARE:
                return Window(0, self.validations.last)
            case Kind.CLAIM:
                return self.claims

    def is_under_way(self, height: int) -> bool:
        """Tell whether ``height``, the latest block's, lies between its start and the return to inference."""
        return self.start <= height < self.inference_from

    def duty(self, height: int) -> Duty:
        """Return the duty of the nodes that take part when the latest block's height is ``height``."""
        if not self.is_under_way(height):
            return Duty.INFERENCE
        return Duty.GENERATE if height < self._switch_at else Duty.VALIDATE

    def is_time_to_switch(self, height: int) -> bool:
        """Tell whether generation has ended, so that a node that has delivered all its batches validates early."""
        return self.generation_end <= height < self._switch_at

    @property
    def _switch_at(self) -> int:
        """The height from which on every node validates, whether it has delivered all its batches or not."""
        return max(self.generation_end, min(self.batches.last - _BLOCKS_LEFT_AT_THE_SWITCH, self.validation_start))

    def phase(self, height: int) -> Phase:
        """Name the phase at a height."""
        if not self.is_under_way(height):
            return Phase.INFERENCE
        if height < self.generate_wind_down:
            return Phase.GENERATE
        if height < self.validation_start:
            return Phase.GENERATE_WIND_DOWN
        if height < self.validate_wind_down:
            return Phase.VALIDATE
        return Phase.VALIDATE_WIND_DOWN


class EpochParameters(msgspec.Struct, frozen=True):
    """The durations of an epoch, in blocks; epoch 0 is shorter by ``epoch_shift``."""

    epoch_length: int
    poc_stage_duration: int
    poc_exchange_duration: int
    poc_validation_delay: int
    poc_validation_duration: int
    set_new_validators_delay: int = 0
    epoch_shift: int = 0


class ConfirmationEvent(msgspec.Struct, frozen=True):
    """A PoC inside the inference phase; ``seed_block_hash`` (lower-case hex) is empty until its generation starts."""

    epoch_index: int
    trigger_height: int
    generation_start: int
    seed_block_hash: str


class Situation(msgspec.Struct, frozen=True):
    """Where the chain is. ``blocks_left`` is counted to the end of the window that is open now.

    ``stage_height`` is what the stage's messages carry, None in the inference phase; then ``blocks_left`` is counted to
    the next PoC.
    """

    height: int
    epoch_index: int
    phase: Phase
    stage_height: int | None
    is_confirmation: bool
    blocks_left: int


class EpochInfo(msgspec.Struct, frozen=True):
    """What the chain says of its epochs at the height ``block_height``; epoch 0 has no PoC.

    ``is_poc_v2`` says that the network runs PoC v2, and takes no v1 message.
    """

    block_height: int
    index: int
    poc_start: int
    parameters: EpochParameters
    sample_size: int
    confirmation: ConfirmationEvent | None
    is_poc_v2: bool = False

    def stages(self) -> list[PocStage]:
        """Return the stages that it tells of; the confirmation comes first, and wins if both were under way."""
        stages = []
        if self.confirmation is not None:
            stages.append(confirmation_stage(self.parameters, self.confirmation))
        if self.index > 0:
            stages.append(regular_stage(self.parameters, self.index, self.poc_start))
        return stages

    def stage_under_way(self) -> PocStage | None:
        """Return the stage that is under way, None in the inference phase."""
        return next((stage for stage in self.stages() if stage.is_under_way(self.block_height)), None)

    def next_poc_start(self) -> int:
        """Return the height at which the next regular PoC starts."""
        if self.index == 0:
            return self.parameters.epoch_length - self.parameters.epoch_shift
        return self.poc_start + self.parameters.epoch_length

    def situation(self) -> Situation:
        """Return where the chain is at ``block_height``."""
        height, stage = self.block_height, self.stage_under_way()
        if stage is None:
            starts = [stage.start for stage in self.stages() if stage.start > height]
            left = min([*starts, self.next_poc_start()]) - height
            return Situation(height, self.index, Phase.INFERENCE, None, False, max(0, left))
        window = stage.batches if height < stage.batches.last else stage.validations
        left = window.last - height
        return Situation(height, stage.epoch_index, stage.phase(height), stage.height, stage.is_confirmation, left)


def regular_stage(parameters: EpochParameters, epoch_index: int, poc_start: int) -> PocStage:
    """Return the PoC that starts at the height ``poc_start``."""
    stage = _stage(parameters, epoch_index, poc_start, poc_start, is_confirmation=False)
    # The block that sets new validators settles the epoch before: what was owed until then is gone.
    settled = stage.validations.last + parameters.set_new_validators_delay
    return msgspec.structs.replace(stage, claims=Window(settled + 1, settled + parameters.epoch_length))


def confirmation_stage(parameters: EpochParameters, event: ConfirmationEvent) -> PocStage:
    """Return the confirmation PoC of an event; its messages carry the trigger height."""
    return _stage(parameters, event.epoch_index, event.trigger_height, event.generation_start, is_confirmation=True)


def _stage(
    parameters: EpochParameters, epoch_index: int, height: int, start: int, *, is_confirmation: bool
) -> PocStage:
    shorter = 1 if is_confirmation else 0
    generation_end = start + parameters.poc_stage_duration - shorter
    exchange_end = generation_end + parameters.poc_exchange_duration
    validation_start = (exchange_end if is_confirmation else generation_end) + parameters.poc_validation_delay
    validation_end = validation_start + parameters.poc_validation_duration - shorter
    return PocStage(
        height=height,
        epoch_index=epoch_index,
        is_confirmation=is_confirmation,
        start=start,
        generate_wind_down=start + _most_of(parameters.poc_stage_duration),
        generation_end=generation_end,
        batches=Window(start + 1, exchange_end),
        validation_start=validation_start,
        validate_wind_down=validation_start + _most_of(parameters.poc_validation_duration),
        validations=Window(validation_start + 1, validation_end),
        inference_from=validation_end + shorter,
    )


def _most_of(duration: int) -> int:
    """Return 0.8 of a duration as the chain computes it: in floating point, rounded down."""
    return int(0.8 * duration)
