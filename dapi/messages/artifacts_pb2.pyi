from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryOfStageRequest(_message.Message):
    __slots__ = ("poc_stage_start_block_height", "participant", "model_id")
    POC_STAGE_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    poc_stage_start_block_height: int
    participant: str
    model_id: str
    def __init__(self, poc_stage_start_block_height: _Optional[int] = ..., participant: _Optional[str] = ..., model_id: _Optional[str] = ...) -> None: ...

class QueryPoCV2StoreCommitResponse(_message.Message):
    __slots__ = ("count", "root_hash", "found")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROOT_HASH_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    count: int
    root_hash: bytes
    found: bool
    def __init__(self, count: _Optional[int] = ..., root_hash: _Optional[bytes] = ..., found: _Optional[bool] = ...) -> None: ...

class NodeWeight(_message.Message):
    __slots__ = ("node_id", "weight")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    weight: int
    def __init__(self, node_id: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class QueryMLNodeWeightDistributionResponse(_message.Message):
    __slots__ = ("weights", "found")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedCompositeFieldContainer[NodeWeight]
    found: bool
    def __init__(self, weights: _Optional[_Iterable[_Union[NodeWeight, _Mapping]]] = ..., found: _Optional[bool] = ...) -> None: ...
