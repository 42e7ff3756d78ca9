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

class QueryWholeStageRequest(_message.Message):
    __slots__ = ("poc_stage_start_block_height",)
    POC_STAGE_START_BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    poc_stage_start_block_height: int
    def __init__(self, poc_stage_start_block_height: _Optional[int] = ...) -> None: ...

class StoreCommit(_message.Message):
    __slots__ = ("participant", "count", "model_id")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    participant: str
    count: int
    model_id: str
    def __init__(self, participant: _Optional[str] = ..., count: _Optional[int] = ..., model_id: _Optional[str] = ...) -> None: ...

class QueryAllPoCV2StoreCommitsForStageResponse(_message.Message):
    __slots__ = ("commits",)
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    commits: _containers.RepeatedCompositeFieldContainer[StoreCommit]
    def __init__(self, commits: _Optional[_Iterable[_Union[StoreCommit, _Mapping]]] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("validator",)
    VALIDATOR_FIELD_NUMBER: _ClassVar[int]
    validator: str
    def __init__(self, validator: _Optional[str] = ...) -> None: ...

class VotesOnParticipant(_message.Message):
    __slots__ = ("participant", "votes", "model_id")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    participant: str
    votes: _containers.RepeatedCompositeFieldContainer[Vote]
    model_id: str
    def __init__(self, participant: _Optional[str] = ..., votes: _Optional[_Iterable[_Union[Vote, _Mapping]]] = ..., model_id: _Optional[str] = ...) -> None: ...

class QueryPocV2ValidationsForStageResponse(_message.Message):
    __slots__ = ("judged",)
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    judged: _containers.RepeatedCompositeFieldContainer[VotesOnParticipant]
    def __init__(self, judged: _Optional[_Iterable[_Union[VotesOnParticipant, _Mapping]]] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("target", "start_height")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    START_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    target: str
    start_height: int
    def __init__(self, target: _Optional[str] = ..., start_height: _Optional[int] = ...) -> None: ...

class OpenChallenge(_message.Message):
    __slots__ = ("challenge", "finish")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    challenge: Challenge
    finish: int
    def __init__(self, challenge: _Optional[_Union[Challenge, _Mapping]] = ..., finish: _Optional[int] = ...) -> None: ...

class QueryOpenPoCChallengesResponse(_message.Message):
    __slots__ = ("challenges",)
    CHALLENGES_FIELD_NUMBER: _ClassVar[int]
    challenges: _containers.RepeatedCompositeFieldContainer[OpenChallenge]
    def __init__(self, challenges: _Optional[_Iterable[_Union[OpenChallenge, _Mapping]]] = ...) -> None: ...
