"""What ML nodes send, decoded strictly from bytes.

The forms are those of the ML node: a bare JSON batch over HTTP, and over the WebSocket the same batch in an envelope
``{"type": "generated" | "validated", "batch": {…}, "id": "<uuid>"}`` that is acknowledged with
``{"type": "ack", "id": "<the same>"}``. Fields that are not listed here are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from dapi.errors import MessageError
from dapi.messages.field_errors import field_and_reason

Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Height: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ProofBatch(msgspec.Struct, frozen=True):
    """Nonces that a node computed, each with its distance.

    ``public_key`` is the participant's key in hex, ``block_hash`` the text of the node's init, to the letter,
    ``node_num`` the node's number, which the wire calls ``node_id``. ``nonces`` and ``dist`` are of equal length, the
    distances finite.
    """

    public_key: str
    block_hash: str
    block_height: Height
    nonces: list[Int64]
    dist: list[float]
    node_num: Int64 = msgspec.field(name="node_id")


class ValidatedBatch(msgspec.Struct, frozen=True):
    """A node's verdict on a batch of another participant.

    ``public_key`` is the hex key of the participant whose batch was checked; ``node_num`` (on the wire: ``node_id``) is
    whatever that batch carried and does not name the node that validated. The lists are of equal length; ``dist`` is
    what this node recomputed, ``received_dist`` what the participant claimed. They are not submitted, so a NaN in them
    is allowed.
    """

    public_key: str
    block_hash: str
    block_height: Height
    nonces: list[Int64]
    dist: list[float]
    received_dist: list[float]
    r_target: float
    fraud_threshold: float
    n_invalid: Int64
    probability_honest: float
    fraud_detected: bool
    node_num: Int64 = msgspec.field(name="node_id")

    def has_nan(self) -> bool:
        """Tell whether a recomputed or received distance is NaN."""
        # A sum is NaN when one of its terms is. It costs a third of what a look at each term costs.
        return math.isnan(sum(self.dist)) or math.isnan(sum(self.received_dist))


class GeneratedMessage(msgspec.Struct, frozen=True, tag_field="type", tag="generated"):
    """A generated batch in its WebSocket envelope; ``id`` is what the ack must carry."""

    batch: ProofBatch
    id: str


class ValidatedMessage(msgspec.Struct, frozen=True, tag_field="type", tag="validated"):
    """A validated batch in its WebSocket envelope; ``id`` is what the ack must carry."""

    batch: ValidatedBatch
    id: str


class _Ack(msgspec.Struct, tag_field="type", tag="ack"):
    id: str


Envelope: TypeAlias = GeneratedMessage | ValidatedMessage

T = TypeVar("T")

_envelopes: msgspec.json.Decoder[Envelope] = msgspec.json.Decoder(Envelope)
_generated = msgspec.json.Decoder(ProofBatch)
_validated = msgspec.json.Decoder(ValidatedBatch)
_acks = msgspec.json.Encoder()


def decode_envelope(payload: bytes) -> Envelope:
    """Decode one WebSocket message; raise MessageError, with the field's path, when it is not a valid one."""
    message = _decode(payload, _envelopes)
    _check(message.batch, "$.batch")
    return message


def decode_generated(payload: bytes) -> ProofBatch:
    """Decode the body of a ``generated`` callback; raise MessageError when it is not a valid one."""
    batch = _decode(payload, _generated)
    _check(batch, "$")
    return batch


def decode_validated(payload: bytes) -> ValidatedBatch:
    """Decode the body of a ``validated`` callback; raise MessageError when it is not a valid one."""
    batch = _decode(payload, _validated)
    _check(batch, "$")
    return batch


def encode_ack(message_id: str) -> bytes:
    """Encode the acknowledgement of the message with this id."""
    return _acks.encode(_Ack(message_id))


def _decode(payload: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    if not payload.isascii():
        # msgspec does not look into the fields that it skips, so the whole payload is checked here.
        try:
            str(payload, "utf-8")
        except UnicodeDecodeError as error:
            raise MessageError("$", f"invalid UTF-8 at byte {error.start}") from error
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise MessageError(*field_and_reason(error)) from error
    except msgspec.DecodeError as error:
        if b"NaN" not in payload and b"Infinity" not in payload:
            raise MessageError("$", str(error)) from error
        return _decode_with_literals(payload, decoder.type)
    except RecursionError as error:
        raise MessageError("$", "nested too deeply") from error


def _decode_with_literals(payload: bytes, wanted: Callable[..., T]) -> T:
    """Decode JSON with the literals that Python's encoder writes for numbers that JSON does not have.

    This is slow and rare: a node sends them when a recomputed distance is NaN.
    """
    try:
        message: T = msgspec.convert(json.loads(payload), wanted)
        # Unlike msgspec, json accepts half of a surrogate pair, which can be neither hashed nor acknowledged.
        msgspec.json.encode(message)
    except msgspec.ValidationError as error:
        raise MessageError(*field_and_reason(error)) from error
    except ValueError as error:
        raise MessageError("$", f"JSON is malformed: {error}") from error
    except RecursionError as error:
        raise MessageError("$", "nested too deeply") from error
    return message


def _check(batch: ProofBatch | ValidatedBatch, path: str) -> None:
    expected = len(batch.nonces)
    nan_allowed = isinstance(batch, ValidatedBatch)
    for name, values in _lists(batch):
        if len(values) != expected:
            raise MessageError(f"{path}.{name}", f"has {len(values)} numbers, nonces has {expected}")
        # The sum of finite numbers may overflow, so it only tells whether to look at each.
        if not math.isfinite(sum(values)):
            for index, value in enumerate(values):
                if math.isinf(value) or (math.isnan(value) and not nan_allowed):
                    raise MessageError(f"{path}.{name}[{index}]", f"is {value}, not a finite number")
    if isinstance(batch, ValidatedBatch):
        for name in ("r_target", "fraud_threshold", "probability_honest"):
            if not math.isfinite(getattr(batch, name)):
                raise MessageError(f"{path}.{name}", f"is {getattr(batch, name)}, not a finite number")


def _lists(batch: ProofBatch | ValidatedBatch) -> Iterator[tuple[str, list[Any]]]:
    yield "dist", batch.dist
    if isinstance(batch, ValidatedBatch):
        yield "received_dist", batch.received_dist
