"""Answers to PocBatchesForStage, encoded and decoded as a whole by the protobuf library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.chain_tools import Key

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tests.stage_answers"
# The network's own messages: type and label of each field by its number (docs/protocol/chain.md, 'Validation').
_MESSAGES: dict[str, dict[int, tuple[str, Any, bool]]] = {
    "Answer": {1: ("participants", "Participant", True)},
    "Participant": {
        1: ("participant", _Field.TYPE_BYTES, False),
        2: ("pub_key", _Field.TYPE_BYTES, False),
        3: ("hex_pub_key", _Field.TYPE_BYTES, False),
        4: ("poc_batch", "Batch", True),
    },
    "Batch": {
        1: ("participant_address", _Field.TYPE_BYTES, False),
        2: ("poc_stage_start_block_height", _Field.TYPE_INT64, False),
        3: ("received_at_block_height", _Field.TYPE_INT64, False),
        4: ("nonces", _Field.TYPE_INT64, True),
        5: ("dist", _Field.TYPE_DOUBLE, True),
        6: ("batch_id", _Field.TYPE_BYTES, False),
        7: ("node_id", _Field.TYPE_BYTES, False),
    },
}

Batches = list[tuple[list[int], list[float]]]


class Stored(NamedTuple):
    """The batches of one participant: the nonces and distances of each."""

    address: str
    public_key: str
    batches: Batches


def stored(key: Key, *batches: tuple[list[int], list[float]]) -> Stored:
    return Stored(key.address, key.public.hex(), list(batches))


def encode_stage(participants: Iterable[Stored]) -> bytes:
    """The value of the answer, with everything in it that the chain tells."""
    answer = _ANSWER()
    for number, (address, public_key, batches) in enumerate(participants):
        of_one = answer.participants.add(
            participant=address.encode(), pub_key=b"base64==", hex_pub_key=public_key.encode()
        )
        for nonces, dist in batches:
            of_one.poc_batch.add(
                participant_address=address.encode(),
                poc_stage_start_block_height=10,
                received_at_block_height=12,
                nonces=nonces,
                dist=dist,
                # Participants write these as they like.
                batch_id=b"\xff\xfe%d" % number,
                node_id=b"node1",
            )
    value: bytes = answer.SerializeToString()
    return value


def decode_stage(value: bytes) -> list[Stored]:
    """What the value says, decoded in one go."""
    return [
        Stored(
            of_one.participant.decode(),
            of_one.hex_pub_key.decode(),
            [(list(batch.nonces), list(batch.dist)) for batch in of_one.poc_batch],
        )
        for of_one in _ANSWER.FromString(value).participants
    ]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The pieces of ``data`` when it is cut at these places, taken modulo its length."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[begin:end] for begin, end in zip([0, *at], [*at, len(data)], strict=True)]


def _answer_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tests/stage_answers.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, is_repeated) in fields.items():
            label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
            declared = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                declared.type, declared.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                declared.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Answer"))


_ANSWER = _answer_class()
