from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HardwareNodeStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HARDWARE_NODE_UNKNOWN: _ClassVar[HardwareNodeStatus]
    HARDWARE_NODE_INFERENCE: _ClassVar[HardwareNodeStatus]
    HARDWARE_NODE_POC: _ClassVar[HardwareNodeStatus]
    HARDWARE_NODE_TRAINING: _ClassVar[HardwareNodeStatus]
    HARDWARE_NODE_STOPPED: _ClassVar[HardwareNodeStatus]
    HARDWARE_NODE_FAILED: _ClassVar[HardwareNodeStatus]
HARDWARE_NODE_UNKNOWN: HardwareNodeStatus
HARDWARE_NODE_INFERENCE: HardwareNodeStatus
HARDWARE_NODE_POC: HardwareNodeStatus
HARDWARE_NODE_TRAINING: HardwareNodeStatus
HARDWARE_NODE_STOPPED: HardwareNodeStatus
HARDWARE_NODE_FAILED: HardwareNodeStatus

class Hardware(_message.Message):
    __slots__ = ("type", "count")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    type: str
    count: int
    def __init__(self, type: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class HardwareNode(_message.Message):
    __slots__ = ("local_id", "status", "models", "hardware", "host", "port")
    LOCAL_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    local_id: str
    status: HardwareNodeStatus
    models: _containers.RepeatedScalarFieldContainer[str]
    hardware: _containers.RepeatedCompositeFieldContainer[Hardware]
    host: str
    port: str
    def __init__(self, local_id: _Optional[str] = ..., status: _Optional[_Union[HardwareNodeStatus, str]] = ..., models: _Optional[_Iterable[str]] = ..., hardware: _Optional[_Iterable[_Union[Hardware, _Mapping]]] = ..., host: _Optional[str] = ..., port: _Optional[str] = ...) -> None: ...

class MsgSubmitHardwareDiff(_message.Message):
    __slots__ = ("creator", "new_or_modified", "removed")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    NEW_OR_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    creator: str
    new_or_modified: _containers.RepeatedCompositeFieldContainer[HardwareNode]
    removed: _containers.RepeatedCompositeFieldContainer[HardwareNode]
    def __init__(self, creator: _Optional[str] = ..., new_or_modified: _Optional[_Iterable[_Union[HardwareNode, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[HardwareNode, _Mapping]]] = ...) -> None: ...

class MsgClaimRewards(_message.Message):
    __slots__ = ("creator", "seed", "epoch_index")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    creator: str
    seed: int
    epoch_index: int
    def __init__(self, creator: _Optional[str] = ..., seed: _Optional[int] = ..., epoch_index: _Optional[int] = ...) -> None: ...

class MsgClaimRewardsResponse(_message.Message):
    __slots__ = ("amount", "result")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    amount: int
    result: str
    def __init__(self, amount: _Optional[int] = ..., result: _Optional[str] = ...) -> None: ...

class QueryOfParticipantRequest(_message.Message):
    __slots__ = ("participant",)
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    participant: str
    def __init__(self, participant: _Optional[str] = ...) -> None: ...

class HardwareNodes(_message.Message):
    __slots__ = ("participant", "hardware_nodes")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_NODES_FIELD_NUMBER: _ClassVar[int]
    participant: str
    hardware_nodes: _containers.RepeatedCompositeFieldContainer[HardwareNode]
    def __init__(self, participant: _Optional[str] = ..., hardware_nodes: _Optional[_Iterable[_Union[HardwareNode, _Mapping]]] = ...) -> None: ...

class QueryHardwareNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: HardwareNodes
    def __init__(self, nodes: _Optional[_Union[HardwareNodes, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class QueryModelsAllResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, model: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class SettleAmount(_message.Message):
    __slots__ = ("participant", "reward_coins", "work_coins", "epoch_index", "seed_signature")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    REWARD_COINS_FIELD_NUMBER: _ClassVar[int]
    WORK_COINS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    participant: str
    reward_coins: int
    work_coins: int
    epoch_index: int
    seed_signature: str
    def __init__(self, participant: _Optional[str] = ..., reward_coins: _Optional[int] = ..., work_coins: _Optional[int] = ..., epoch_index: _Optional[int] = ..., seed_signature: _Optional[str] = ...) -> None: ...

class QuerySettleAmountResponse(_message.Message):
    __slots__ = ("settle_amount",)
    SETTLE_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    settle_amount: SettleAmount
    def __init__(self, settle_amount: _Optional[_Union[SettleAmount, _Mapping]] = ...) -> None: ...

class MlNodeVersion(_message.Message):
    __slots__ = ("current_version",)
    CURRENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    current_version: str
    def __init__(self, current_version: _Optional[str] = ...) -> None: ...

class QueryMlNodeVersionResponse(_message.Message):
    __slots__ = ("mlnode_version",)
    MLNODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    mlnode_version: MlNodeVersion
    def __init__(self, mlnode_version: _Optional[_Union[MlNodeVersion, _Mapping]] = ...) -> None: ...
