"""What ML nodes send, decoded strictly from bytes.

The forms are those of the ML node: a bare JSON batch over HTTP, and over the WebSocket the same batch in an envelope
``{"type": "generated" | "validated", "batch": {…}, "id": "<uuid>"}`` that is acknowledged with
``{"type": "ack", "id": "<the same>"}``. Fields that are not listed here are ignored.

The numbers of what was decoded are columns. They become columns at once where ``number_lists`` can read them; msgspec
decodes everything else, the whole text included where its numbers cannot be read like that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from dapi.errors import MessageError
from dapi.messages import number_lists
from dapi.messages.columns import Typecode, column
from dapi.messages.field_errors import field_and_reason
from dapi.messages.signs import first_negative

Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Height: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ProofBatch(msgspec.Struct, frozen=True):
    """Nonces that a node computed, each with its distance.

    ``public_key`` is the participant's key in hex, ``block_hash`` the text of the node's init, to the letter,
    ``node_num`` the node's number, which the wire calls ``node_id``. ``nonces`` and ``dist`` are of equal length, the
    distances finite, none of them below 0; in a batch that was decoded here both are columns.
    """

    public_key: str
    block_hash: str
    block_height: Height
    nonces: Sequence[Int64]
    dist: Sequence[float]
    node_num: Int64 = msgspec.field(name="node_id")


class ValidatedBatch(msgspec.Struct, frozen=True):
    """A node's verdict on a batch of another participant.

    ``public_key`` is the hex key of the participant whose batch was checked; ``node_num`` (on the wire: ``node_id``) is
    whatever that batch carried and does not name the node that validated. The lists are of equal length, and columns
    as in a ProofBatch; ``dist`` is what this node recomputed, ``received_dist`` what the participant claimed. They are
    not submitted, so a NaN in them is allowed.
    """

    public_key: str
    block_hash: str
    block_height: Height
    nonces: Sequence[Int64]
    dist: Sequence[float]
    received_dist: Sequence[float]
    r_target: float
    fraud_threshold: float
    n_invalid: Int64
    probability_honest: float
    fraud_detected: bool
    node_num: Int64 = msgspec.field(name="node_id")

    def has_nan(self) -> bool:
        """Tell whether a recomputed or received distance is NaN."""
        # A sum is NaN when one of its terms is. It costs a third of what a look at each term costs.
        return any(
            math.isnan(sum(values[begin : begin + _SUMMED]))
            for values in (self.dist, self.received_dist)
            for begin in range(0, len(values), _SUMMED)
        )


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

T = TypeVar("T", bound=Envelope | ProofBatch | ValidatedBatch)

_envelopes: msgspec.json.Decoder[Envelope] = msgspec.json.Decoder(Envelope)
_generated = msgspec.json.Decoder(ProofBatch)
_validated = msgspec.json.Decoder(ValidatedBatch)
_acks = msgspec.json.Encoder()

# So many distances at a time, so that another thread may have the interpreter soon.
_SUMMED: Final = 32_768

_COLUMNS: Final[dict[type[msgspec.Struct], dict[str, Typecode]]] = {
    ProofBatch: {"nonces": "q", "dist": "d"},
    ValidatedBatch: {"nonces": "q", "dist": "d", "received_dist": "d"},
}


def decode_envelope(payload: bytes) -> Envelope:
    """Decode one WebSocket message; raise MessageError, with the field's path, when it is not a valid one."""
    return _decode(payload, _envelopes)


def decode_generated(payload: bytes) -> ProofBatch:
    """Decode the body of a ``generated`` callback; raise MessageError when it is not a valid one."""
    return _decode(payload, _generated)


def decode_validated(payload: bytes) -> ValidatedBatch:
    """Decode the body of a ``validated`` callback; raise MessageError when it is not a valid one."""
    return _decode(payload, _validated)


def decode_large_envelope(payload: bytes) -> tuple[Envelope, bool]:
    """Decode as ``decode_envelope`` does, on any thread.

    Also return whether the numbers were read some at a time. If not, one long step has kept the interpreter from all
    other threads, as it may have before a refusal.
    """
    return _decode_either_way(payload, _envelopes)


def decode_large_generated(payload: bytes) -> tuple[ProofBatch, bool]:
    """Decode as ``decode_generated`` does; the rest is as with ``decode_large_envelope``."""
    return _decode_either_way(payload, _generated)


def decode_large_validated(payload: bytes) -> tuple[ValidatedBatch, bool]:
    """Decode as ``decode_validated`` does; the rest is as with ``decode_large_envelope``."""
    return _decode_either_way(payload, _validated)


def encode_ack(message_id: str) -> bytes:
    """Encode the acknowledgement of the message with this id."""
    return _acks.encode(_Ack(message_id))


def _decode(payload: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    return _decode_either_way(payload, decoder)[0]


def _decode_either_way(payload: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T, bool]:
    if not payload.isascii():
        # msgspec does not look into the fields that it skips, so the whole payload is checked here.
        try:
            str(payload, "utf-8")
        except UnicodeDecodeError as error:
            raise MessageError("$", f"invalid UTF-8 at byte {error.start}") from error
    apart = _decode_apart(payload, decoder)
    decoded = apart if apart is not None else _decode_whole(payload, decoder)
    _check_lengths(*_batch_in(decoded))
    _check_signs(*_batch_in(decoded))
    return decoded, apart is not None


def _decode_apart(payload: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Decode the lists of numbers by themselves; None: the whole text has to be decoded, be it valid or not."""
    cut = number_lists.cut(payload)
    if cut is None:
        return None
    try:
        decoded = decoder.decode(cut.text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    batch, _ = _batch_in(decoded)
    typecodes = _COLUMNS[type(batch)]
    if len(cut.lists) != len(typecodes):
        return None
    for name, typecode in typecodes.items():
        (place,) = getattr(batch, name)
        is_verdict = isinstance(batch, ValidatedBatch)
        numbers = number_lists.read_column(payload, cut.lists[int(place)], typecode, with_nan=is_verdict)
        if numbers is None:
            return None
        # Nobody has seen the batch yet.
        msgspec.structs.force_setattr(batch, name, numbers)
    return decoded


def _decode_whole(payload: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        decoded = decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise MessageError(*field_and_reason(error)) from error
    except msgspec.DecodeError as error:
        if b"NaN" not in payload and b"Infinity" not in payload:
            raise MessageError("$", str(error)) from error
        decoded = _decode_with_literals(payload, decoder.type)
        _check_finite(*_batch_in(decoded))
    except RecursionError as error:
        raise MessageError("$", "nested too deeply") from error
    batch, _ = _batch_in(decoded)
    for name, typecode in _COLUMNS[type(batch)].items():
        msgspec.structs.force_setattr(batch, name, column(typecode, getattr(batch, name)))
    return decoded


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


def _batch_in(decoded: Envelope | ProofBatch | ValidatedBatch) -> tuple[ProofBatch | ValidatedBatch, str]:
    """Return the batch in what was decoded, and its path there."""
    if isinstance(decoded, GeneratedMessage | ValidatedMessage):
        return decoded.batch, "$.batch"
    return decoded, "$"


def _check_lengths(batch: ProofBatch | ValidatedBatch, path: str) -> None:
    expected = len(batch.nonces)
    for name in _COLUMNS[type(batch)]:
        values = getattr(batch, name)
        if len(values) != expected:
            raise MessageError(f"{path}.{name}", f"has {len(values)} numbers, nonces has {expected}")


def _check_signs(batch: ProofBatch | ValidatedBatch, path: str) -> None:
    """Refuse what the chain takes of nobody: the transaction of such a batch fails, with all others in it.

    (docs/protocol/chain.md, 'Checks of messages')
    """
    if isinstance(batch, ValidatedBatch):
        # Its lists are not submitted.
        return
    for name in _COLUMNS[ProofBatch]:
        values = getattr(batch, name)
        place = first_negative(values)
        if place is not None:
            raise MessageError(f"{path}.{name}[{place}]", f"is {values[place]}, and the chain takes no number below 0")


def _check_finite(batch: ProofBatch | ValidatedBatch, path: str) -> None:
    """Refuse infinite numbers, and NaN where none is allowed: JSON has neither, so only literals can be such."""
    nan_allowed = isinstance(batch, ValidatedBatch)
    for name, typecode in _COLUMNS[type(batch)].items():
        for index, value in enumerate(getattr(batch, name)):
            if typecode == "d" and (math.isinf(value) or (math.isnan(value) and not nan_allowed)):
                raise MessageError(f"{path}.{name}[{index}]", f"is {value}, not a finite number")
    if isinstance(batch, ValidatedBatch):
        for name in ("r_target", "fraud_threshold", "probability_honest"):
            if not math.isfinite(getattr(batch, name)):
                raise MessageError(f"{path}.{name}", f"is {getattr(batch, name)}, not a finite number")
