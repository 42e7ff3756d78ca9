from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryPocBatchesForStageRequest(_message.Message):
    __slots__ = ("block_height",)
    BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    block_height: int
    def __init__(self, block_height: _Optional[int] = ...) -> None: ...

class PocBatch(_message.Message):
    __slots__ = ("nonces", "dist")
    NONCES_FIELD_NUMBER: _ClassVar[int]
    DIST_FIELD_NUMBER: _ClassVar[int]
    nonces: _containers.RepeatedScalarFieldContainer[int]
    dist: bytes
    def __init__(self, nonces: _Optional[_Iterable[int]] = ..., dist: _Optional[bytes] = ...) -> None: ...

class QueryEpochGroupDataRequest(_message.Message):
    __slots__ = ("epoch_index", "model_id")
    EPOCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    epoch_index: int
    model_id: str
    def __init__(self, epoch_index: _Optional[int] = ..., model_id: _Optional[str] = ...) -> None: ...

class QueryEpochGroupDataResponse(_message.Message):
    __slots__ = ("epoch_group_data",)
    EPOCH_GROUP_DATA_FIELD_NUMBER: _ClassVar[int]
    epoch_group_data: EpochGroupData
    def __init__(self, epoch_group_data: _Optional[_Union[EpochGroupData, _Mapping]] = ...) -> None: ...

class EpochGroupData(_message.Message):
    __slots__ = ("validation_weights", "sub_group_models", "model_snapshot")
    VALIDATION_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SUB_GROUP_MODELS_FIELD_NUMBER: _ClassVar[int]
    MODEL_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    validation_weights: _containers.RepeatedCompositeFieldContainer[ValidationWeight]
    sub_group_models: _containers.RepeatedScalarFieldContainer[str]
    model_snapshot: ModelSnapshot
    def __init__(self, validation_weights: _Optional[_Iterable[_Union[ValidationWeight, _Mapping]]] = ..., sub_group_models: _Optional[_Iterable[str]] = ..., model_snapshot: _Optional[_Union[ModelSnapshot, _Mapping]] = ...) -> None: ...

class ModelSnapshot(_message.Message):
    __slots__ = ("model_args",)
    MODEL_ARGS_FIELD_NUMBER: _ClassVar[int]
    model_args: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, model_args: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ValidationWeight(_message.Message):
    __slots__ = ("member_address", "weight", "ml_nodes", "confirmation_weight")
    MEMBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ML_NODES_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    member_address: str
    weight: int
    ml_nodes: _containers.RepeatedCompositeFieldContainer[MlNodeInfo]
    confirmation_weight: int
    def __init__(self, member_address: _Optional[str] = ..., weight: _Optional[int] = ..., ml_nodes: _Optional[_Iterable[_Union[MlNodeInfo, _Mapping]]] = ..., confirmation_weight: _Optional[int] = ...) -> None: ...

class MlNodeInfo(_message.Message):
    __slots__ = ("node_id", "poc_weight", "timeslot_allocation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    POC_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TIMESLOT_ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    poc_weight: int
    timeslot_allocation: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, node_id: _Optional[bytes] = ..., poc_weight: _Optional[int] = ..., timeslot_allocation: _Optional[_Iterable[bool]] = ...) -> None: ...
