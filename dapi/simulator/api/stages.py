"""When the simulated api container takes what. Facts: docs/protocol/poc-v2.md, 'Heights'."""

from __future__ import annotations

import enum

import msgspec


class Phase(enum.StrEnum):
    """The phases that ``epochs/latest`` names."""

    INFERENCE = "Inference"
    GENERATE = "PoCGenerate"
    GENERATE_WIND_DOWN = "PoCGenerateWindDown"
    VALIDATE = "PoCValidate"
    VALIDATE_WIND_DOWN = "PoCValidateWindDown"


class EventPhase(enum.IntEnum):
    """The phases of a confirmation PoC, as ``epochs/latest`` numbers them."""

    GRACE = 1
    GENERATION = 2
    VALIDATION = 3
    COMPLETED = 4


class Durations(msgspec.Struct, frozen=True):
    """In blocks; the exchange window is empty on today's network."""

    epoch_length: int = 400
    poc_stage_duration: int = 60
    poc_exchange_duration: int = 0
    poc_validation_delay: int = 5
    poc_validation_duration: int = 20


class Stage(msgspec.Struct, frozen=True):
    """A regular PoC that starts at ``start``, or (``is_confirmation``) a confirmation PoC with that trigger height.

    A confirmation PoC generates ``grace_blocks`` after its trigger, one at least.
    """

    start: int
    durations: Durations = Durations()
    is_confirmation: bool = False
    grace_blocks: int = 1

    @property
    def generation_start(self) -> int:
        """P, or S: from here on artifacts are taken."""
        return self.start + (self.grace_blocks if self.is_confirmation else 0)

    @property
    def end(self) -> int:
        """E: the last height at which artifacts are taken and committed."""
        shorter = 1 if self.is_confirmation else 0
        return (
            self.generation_start + self.durations.poc_stage_duration - shorter + self.durations.poc_exchange_duration
        )

    @property
    def validation_start(self) -> int:
        """V: from here on verdicts are taken."""
        generation_end = self.start + self.durations.poc_stage_duration
        return (self.end if self.is_confirmation else generation_end) + self.durations.poc_validation_delay

    @property
    def validation_end(self) -> int:
        """The first height at which no verdict is taken any more."""
        return self.validation_start + self.durations.poc_validation_duration - (1 if self.is_confirmation else 0)

    def takes_generated(self, height: int) -> bool:
        """Tell whether artifacts are taken while the container's own height is ``height``."""
        return self.generation_start <= height <= self.end

    def takes_validated(self, height: int) -> bool:
        """Tell whether verdicts are taken."""
        return self.validation_start <= height < self.validation_end

    def event_phase(self, height: int) -> EventPhase | None:
        """Return the phase of a confirmation PoC's event; None: there is no event, or it ended a block ago."""
        if not self.is_confirmation or not self.start <= height <= self.validation_end:
            return None
        if height < self.generation_start:
            return EventPhase.GRACE
        if height < self.validation_start:
            return EventPhase.GENERATION
        return EventPhase.VALIDATION if height < self.validation_end else EventPhase.COMPLETED

    def phase(self, height: int) -> Phase:
        """Return the phase as a regular PoC has it."""
        durations = self.durations
        if not self.start <= height < self.validation_end:
            return Phase.INFERENCE
        if height < self.validation_start:
            is_late = height >= self.start + int(0.8 * durations.poc_stage_duration)
            return Phase.GENERATE_WIND_DOWN if is_late else Phase.GENERATE
        is_late = height >= self.validation_start + int(0.8 * durations.poc_validation_duration)
        return Phase.VALIDATE_WIND_DOWN if is_late else Phase.VALIDATE
