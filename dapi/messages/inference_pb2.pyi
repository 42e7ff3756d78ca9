from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MsgSubmitPocBatch(_message.Message):
    __slots__ = ("creator", "poc_stage_start_block_height", "batch_id", "nonces", "dist", "node_id")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    POC_STAGE_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NONCES_FIELD_NUMBER: _ClassVar[int]
    DIST_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    creator: str
    poc_stage_start_block_height: int
    batch_id: str
    nonces: _containers.RepeatedScalarFieldContainer[int]
    dist: _containers.RepeatedScalarFieldContainer[float]
    node_id: str
    def __init__(self, creator: _Optional[str] = ..., poc_stage_start_block_height: _Optional[int] = ..., batch_id: _Optional[str] = ..., nonces: _Optional[_Iterable[int]] = ..., dist: _Optional[_Iterable[float]] = ..., node_id: _Optional[str] = ...) -> None: ...

class MsgSubmitPocBatchPacked(_message.Message):
    __slots__ = ("creator", "poc_stage_start_block_height", "batch_id", "nonces", "dist", "node_id")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    POC_STAGE_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NONCES_FIELD_NUMBER: _ClassVar[int]
    DIST_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    creator: str
    poc_stage_start_block_height: int
    batch_id: str
    nonces: bytes
    dist: bytes
    node_id: str
    def __init__(self, creator: _Optional[str] = ..., poc_stage_start_block_height: _Optional[int] = ..., batch_id: _Optional[str] = ..., nonces: _Optional[bytes] = ..., dist: _Optional[bytes] = ..., node_id: _Optional[str] = ...) -> None: ...

class MsgSubmitPocValidation(_message.Message):
    __slots__ = ("creator", "participant_address", "poc_stage_start_block_height", "nonces", "dist", "received_dist", "r_target", "fraud_threshold", "n_invalid", "probability_honest", "fraud_detected")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POC_STAGE_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NONCES_FIELD_NUMBER: _ClassVar[int]
    DIST_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_DIST_FIELD_NUMBER: _ClassVar[int]
    R_TARGET_FIELD_NUMBER: _ClassVar[int]
    FRAUD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    N_INVALID_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_HONEST_FIELD_NUMBER: _ClassVar[int]
    FRAUD_DETECTED_FIELD_NUMBER: _ClassVar[int]
    creator: str
    participant_address: str
    poc_stage_start_block_height: int
    nonces: _containers.RepeatedScalarFieldContainer[int]
    dist: _containers.RepeatedScalarFieldContainer[float]
    received_dist: _containers.RepeatedScalarFieldContainer[float]
    r_target: float
    fraud_threshold: float
    n_invalid: int
    probability_honest: float
    fraud_detected: bool
    def __init__(self, creator: _Optional[str] = ..., participant_address: _Optional[str] = ..., poc_stage_start_block_height: _Optional[int] = ..., nonces: _Optional[_Iterable[int]] = ..., dist: _Optional[_Iterable[float]] = ..., received_dist: _Optional[_Iterable[float]] = ..., r_target: _Optional[float] = ..., fraud_threshold: _Optional[float] = ..., n_invalid: _Optional[int] = ..., probability_honest: _Optional[float] = ..., fraud_detected: _Optional[bool] = ...) -> None: ...
