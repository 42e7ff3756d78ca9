"""The chain's epochs as pure functions of their parameters and a height.

Formulas from the network's epoch arithmetic (P = the latest epoch's PoC start): a generated batch is accepted in the
blocks P + 1 … P + stage + exchange, a validation in V + 1 … V + validation with V = P + stage + validation delay. A
confirmation PoC (S = its generation start) ends each of its stages one block earlier. The parameters are governed, so
they are read anew each time, and never assumed.
"""

from __future__ import annotations

import msgspec

from dapi.messages import Kind


class Window(msgspec.Struct, frozen=True):
    """The first and the last block in which the chain accepts a message."""

    first: int
    last: int


class PocStage(msgspec.Struct, frozen=True):
    """The windows of one PoC; ``height`` is what its messages carry as their start height."""

    height: int
    batches: Window
    validations: Window

    def window(self, kind: Kind) -> Window:
        """Return the window for messages of this kind."""
        return self.batches if kind is Kind.GENERATED else self.validations


class EpochParameters(msgspec.Struct, frozen=True):
    """The durations of an epoch, in blocks."""

    epoch_length: int
    poc_stage_duration: int
    poc_exchange_duration: int
    poc_validation_delay: int
    poc_validation_duration: int
    set_new_validators_delay: int


def regular_stage(parameters: EpochParameters, poc_start: int) -> PocStage:
    """Return the PoC that starts at the height ``poc_start``."""
    generation_end = poc_start + parameters.poc_stage_duration
    validation_start = generation_end + parameters.poc_validation_delay
    return PocStage(
        height=poc_start,
        batches=Window(poc_start + 1, generation_end + parameters.poc_exchange_duration),
        validations=Window(validation_start + 1, validation_start + parameters.poc_validation_duration),
    )


def confirmation_stage(parameters: EpochParameters, trigger_height: int, generation_start: int) -> PocStage:
    """Return the confirmation PoC of an event; its messages carry the trigger height."""
    exchange_end = generation_start + parameters.poc_stage_duration - 1 + parameters.poc_exchange_duration
    validation_start = exchange_end + parameters.poc_validation_delay
    return PocStage(
        height=trigger_height,
        batches=Window(generation_start + 1, exchange_end),
        validations=Window(validation_start + 1, validation_start + parameters.poc_validation_duration - 1),
    )
