"""Cuts an encoded batch into parts that are messages of their own, without decoding its numbers.

The writer's thread does this, and decoding hundreds of thousands of nonces in one call would keep the interpreter's
lock from the reactor for milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from dapi.messages.inference_pb2 import MsgSubmitPocBatchPacked
from dapi.messages.varints import end_of

_DOUBLE_BYTES: Final = 8


class Part(NamedTuple):
    """A part of a batch: its id, how many ``nonces`` it has, and its message without creator."""

    batch_id: str
    nonces: int
    message: bytes


def parts_of(encoded: bytes, size: int) -> Iterator[Part]:
    """Cut an encoded batch into parts of ``size`` nonces, under ids that tell which of them each part has.

    Raises ValueError when it has more distances than nonces.
    """
    whole = MsgSubmitPocBatchPacked.FromString(encoded)
    nonces, dist = whole.nonces, whole.dist
    total = len(dist) // _DOUBLE_BYTES
    begin = 0
    for first in range(0, total, size):
        count = min(size, total - first)
        end = end_of(nonces, begin, count)
        batch_id = f"{whole.batch_id}-{first}-{first + count - 1}"
        part = MsgSubmitPocBatchPacked(
            poc_stage_start_block_height=whole.poc_stage_start_block_height,
            batch_id=batch_id,
            nonces=nonces[begin:end],
            dist=dist[first * _DOUBLE_BYTES : (first + count) * _DOUBLE_BYTES],
            node_id=whole.node_id,
        )
        yield Part(batch_id, count, part.SerializeToString())
        begin = end
