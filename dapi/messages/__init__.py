"""What travels: wire batches, their content id, and the words for what is kept of them."""

from dapi.messages.content_id import content_id
from dapi.messages.record import Kind, Receipt, State, Via
from dapi.messages.wire import (
    Envelope,
    GeneratedMessage,
    ProofBatch,
    ValidatedBatch,
    ValidatedMessage,
    decode_envelope,
    decode_generated,
    decode_validated,
    encode_ack,
)

__all__ = [
    "Envelope",
    "GeneratedMessage",
    "Kind",
    "ProofBatch",
    "Receipt",
    "State",
    "ValidatedBatch",
    "ValidatedMessage",
    "Via",
    "content_id",
    "decode_envelope",
    "decode_generated",
    "decode_validated",
    "encode_ack",
]
