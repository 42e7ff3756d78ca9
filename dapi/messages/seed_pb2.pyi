from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MsgSubmitSeed(_message.Message):
    __slots__ = ("creator", "epoch_index", "signature")
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    creator: str
    epoch_index: int
    signature: str
    def __init__(self, creator: _Optional[str] = ..., epoch_index: _Optional[int] = ..., signature: _Optional[str] = ...) -> None: ...
