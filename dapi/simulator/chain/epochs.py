"""When the simulated chain takes what: epochs, windows and confirmation events as pure functions of the height.

Facts: docs/protocol/chain.md, 'Epochs and phases' and 'Confirmation PoC'. Heights are those at which a message is
*delivered*; the next block's messages see what the end of a block changes.
"""

from __future__ import annotations

import enum

import msgspec


class EpochParams(msgspec.Struct, frozen=True):
    """Durations in blocks; the defaults are those of a test chain."""

    epoch_length: int = 40
    poc_stage_duration: int = 10
    poc_exchange_duration: int = 2
    poc_validation_delay: int = 2
    poc_validation_duration: int = 6
    set_new_validators_delay: int = 1
    validation_sample_size: int = 200
    """Not in blocks: how many nonces of a participant are validated."""


class Epoch(msgspec.Struct, frozen=True):
    """An epoch and the height at which its PoC starts; epoch 0 has none."""

    index: int
    start: int


class Window(msgspec.Struct, frozen=True):
    """Heights, both included."""

    first: int
    last: int

    def __contains__(self, height: int) -> bool:
        return self.first <= height <= self.last


class ConfirmationPhase(enum.IntEnum):
    """The chain's numbers for the phases of a confirmation PoC."""

    INACTIVE = 0
    GRACE_PERIOD = 1
    GENERATION = 2
    VALIDATION = 3
    COMPLETED = 4


class Epochs(msgspec.Struct, frozen=True):
    """Epoch ``first_index`` starts at ``first_start`` and each next one ``params.epoch_length`` later.

    None as ``first_start``: there is none.
    """

    first_start: int | None = 5
    params: EpochParams = EpochParams()
    first_index: int = 1

    def after(self, height: int) -> Epoch:
        """Return the latest epoch once the block at ``height`` is done."""
        if self.first_start is None or height < self.first_start:
            return Epoch(0, 0)
        passed = (height - self.first_start) // self.params.epoch_length
        return Epoch(self.first_index + passed, self.first_start + passed * self.params.epoch_length)

    def upcoming_at(self, height: int) -> Epoch | None:
        """Return the epoch in preparation while the block at ``height`` is delivered.

        It exists from the block after its PoC start until its validators are set.
        """
        epoch = self.after(height - 1)
        return epoch if epoch.index and height <= self.set_new_validators(epoch.start) else None

    def effective_at(self, height: int) -> int:
        """Return the index of the current epoch while the block at ``height`` is delivered."""
        upcoming = self.upcoming_at(height)
        return self.after(height - 1).index if upcoming is None else upcoming.index - 1

    def batch_window(self, start: int) -> Window:
        """Return the heights at which batches of a PoC that started at ``start`` are taken."""
        return Window(start + 1, start + self.params.poc_stage_duration + self.params.poc_exchange_duration)

    def validation_window(self, start: int) -> Window:
        """Return the heights at which validations of a PoC that started at ``start`` are taken."""
        validation_start = start + self.params.poc_stage_duration + self.params.poc_validation_delay
        return Window(validation_start + 1, validation_start + self.params.poc_validation_duration)

    def set_new_validators(self, start: int) -> int:
        """Return the height whose block makes the epoch of a PoC that started at ``start`` the current one."""
        return self.validation_window(start).last + self.params.set_new_validators_delay

    def changed(self, height: int, params: EpochParams) -> Epochs:
        """Return the epochs with other durations from the block after ``height`` on.

        ValueError for another ``epoch_length`` during a PoC: it breaks a real chain (docs/protocol/measured.md,
        'Governance on a real chain').
        """
        if params.epoch_length == self.params.epoch_length:
            return msgspec.structs.replace(self, params=params)
        if self.upcoming_at(height + 1) is not None:
            raise ValueError("another epoch length during a PoC breaks the chain")
        epoch = self.after(height)
        if not epoch.index:
            return msgspec.structs.replace(self, params=params)
        return Epochs(epoch.start, params, epoch.index)


class ConfirmationEvent(msgspec.Struct, frozen=True):
    """A confirmation PoC; its messages carry ``trigger_height`` as their stage."""

    epoch_index: int
    event_sequence: int
    trigger_height: int
    generation_start_height: int
    poc_seed_block_hash: str = ""

    def batch_window(self, params: EpochParams) -> Window:
        """Return the heights at which its batches are taken."""
        start = self.generation_start_height
        return Window(start + 1, start + params.poc_stage_duration - 1 + params.poc_exchange_duration)

    def validation_window(self, params: EpochParams) -> Window:
        """Return the heights at which its validations are taken."""
        validation_start = self.batch_window(params).last + params.poc_validation_delay
        return Window(validation_start + 1, validation_start + params.poc_validation_duration - 1)

    def phase_at(self, params: EpochParams, height: int) -> ConfirmationPhase:
        """Return the phase that is stored while the block at ``height`` is delivered."""
        validations = self.validation_window(params)
        if height <= self.generation_start_height:
            return ConfirmationPhase.GRACE_PERIOD
        if height < validations.first:
            return ConfirmationPhase.GENERATION
        if height <= validations.last:
            return ConfirmationPhase.VALIDATION
        return ConfirmationPhase.COMPLETED
