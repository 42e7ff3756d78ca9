"""What travels between nodes, dapi and the chain, as values; nothing here waits for anything.

- wire.py: the JSON of the ML nodes, decoded strictly. MessageError names the field that is wrong.
- columns.py, number_lists.py, remainders.py, varints.py: a batch's numbers as columns, from the JSON to the chain's
  message.
- content_id.py: the id of a batch, from its values: the same batch in other bytes has the same id.
- record.py: the words for what is kept (``Kind``, ``Via``, ``State``) and the ``Receipt`` that allows an ack.
- addresses.py, proto/ and the ``*_pb2`` files made from it: the chain's addresses and protobuf messages.
- urls.py, field_errors.py, printable.py, sizes.py: URLs and msgspec's errors taken apart, text from outside, MiB.
"""

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
