from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConfirmationPocPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIRMATION_POC_INACTIVE: _ClassVar[ConfirmationPocPhase]
    CONFIRMATION_POC_GRACE_PERIOD: _ClassVar[ConfirmationPocPhase]
    CONFIRMATION_POC_GENERATION: _ClassVar[ConfirmationPocPhase]
    CONFIRMATION_POC_VALIDATION: _ClassVar[ConfirmationPocPhase]
    CONFIRMATION_POC_COMPLETED: _ClassVar[ConfirmationPocPhase]
CONFIRMATION_POC_INACTIVE: ConfirmationPocPhase
CONFIRMATION_POC_GRACE_PERIOD: ConfirmationPocPhase
CONFIRMATION_POC_GENERATION: ConfirmationPocPhase
CONFIRMATION_POC_VALIDATION: ConfirmationPocPhase
CONFIRMATION_POC_COMPLETED: ConfirmationPocPhase

class EpochParams(_message.Message):
    __slots__ = ("epoch_length", "epoch_multiplier", "epoch_shift", "poc_stage_duration", "poc_exchange_duration", "poc_validation_delay", "poc_validation_duration", "set_new_validators_delay")
    EPOCH_LENGTH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_SHIFT_FIELD_NUMBER: _ClassVar[int]
    POC_STAGE_DURATION_FIELD_NUMBER: _ClassVar[int]
    POC_EXCHANGE_DURATION_FIELD_NUMBER: _ClassVar[int]
    POC_VALIDATION_DELAY_FIELD_NUMBER: _ClassVar[int]
    POC_VALIDATION_DURATION_FIELD_NUMBER: _ClassVar[int]
    SET_NEW_VALIDATORS_DELAY_FIELD_NUMBER: _ClassVar[int]
    epoch_length: int
    epoch_multiplier: int
    epoch_shift: int
    poc_stage_duration: int
    poc_exchange_duration: int
    poc_validation_delay: int
    poc_validation_duration: int
    set_new_validators_delay: int
    def __init__(self, epoch_length: _Optional[int] = ..., epoch_multiplier: _Optional[int] = ..., epoch_shift: _Optional[int] = ..., poc_stage_duration: _Optional[int] = ..., poc_exchange_duration: _Optional[int] = ..., poc_validation_delay: _Optional[int] = ..., poc_validation_duration: _Optional[int] = ..., set_new_validators_delay: _Optional[int] = ...) -> None: ...

class PocParams(_message.Message):
    __slots__ = ("validation_sample_size", "poc_v2_enabled")
    VALIDATION_SAMPLE_SIZE_FIELD_NUMBER: _ClassVar[int]
    POC_V2_ENABLED_FIELD_NUMBER: _ClassVar[int]
    validation_sample_size: int
    poc_v2_enabled: bool
    def __init__(self, validation_sample_size: _Optional[int] = ..., poc_v2_enabled: _Optional[bool] = ...) -> None: ...

class Params(_message.Message):
    __slots__ = ("epoch_params", "poc_params")
    EPOCH_PARAMS_FIELD_NUMBER: _ClassVar[int]
    POC_PARAMS_FIELD_NUMBER: _ClassVar[int]
    epoch_params: EpochParams
    poc_params: PocParams
    def __init__(self, epoch_params: _Optional[_Union[EpochParams, _Mapping]] = ..., poc_params: _Optional[_Union[PocParams, _Mapping]] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("index", "poc_start_block_height")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    POC_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    index: int
    poc_start_block_height: int
    def __init__(self, index: _Optional[int] = ..., poc_start_block_height: _Optional[int] = ...) -> None: ...

class ConfirmationPocEvent(_message.Message):
    __slots__ = ("epoch_index", "event_sequence", "trigger_height", "generation_start_height", "phase", "poc_seed_block_hash")
    EPOCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    EVENT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_START_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POC_SEED_BLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    epoch_index: int
    event_sequence: int
    trigger_height: int
    generation_start_height: int
    phase: ConfirmationPocPhase
    poc_seed_block_hash: str
    def __init__(self, epoch_index: _Optional[int] = ..., event_sequence: _Optional[int] = ..., trigger_height: _Optional[int] = ..., generation_start_height: _Optional[int] = ..., phase: _Optional[_Union[ConfirmationPocPhase, str]] = ..., poc_seed_block_hash: _Optional[str] = ...) -> None: ...

class QueryEpochInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryEpochInfoResponse(_message.Message):
    __slots__ = ("block_height", "params", "latest_epoch", "is_confirmation_poc_active", "active_confirmation_poc_event")
    BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    LATEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_CONFIRMATION_POC_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_CONFIRMATION_POC_EVENT_FIELD_NUMBER: _ClassVar[int]
    block_height: int
    params: Params
    latest_epoch: Epoch
    is_confirmation_poc_active: bool
    active_confirmation_poc_event: ConfirmationPocEvent
    def __init__(self, block_height: _Optional[int] = ..., params: _Optional[_Union[Params, _Mapping]] = ..., latest_epoch: _Optional[_Union[Epoch, _Mapping]] = ..., is_confirmation_poc_active: _Optional[bool] = ..., active_confirmation_poc_event: _Optional[_Union[ConfirmationPocEvent, _Mapping]] = ...) -> None: ...
