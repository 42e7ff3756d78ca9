"""Reads from a callback what the relay uses of it: model, kind, stage, node, nonces, and whether its vectors can be.

All of it may fail: a callback that cannot be read is kept and handed on like any other. A small body that is as nodes
make them is decoded (``read_whole``), five times as fast; all others are looked through in pieces, as they come, and
never held. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import binascii
import math
import re
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

_MAX_CARRY = 16 * 1024
_MAX_MODEL_BYTES = 512
_NUMBER = rb'"%s"\s*:\s*(-?[0-9]{1,25})'
_HEIGHT = re.compile(_NUMBER % b"block_height")
_NODE = re.compile(_NUMBER % b"node_id")
_NONCE = re.compile(_NUMBER % b"nonce")
_VECTOR = re.compile(rb'"vector_b64"\s*:\s*"([^"]*)"')
_VECTOR_CHARACTERS = 32
_VECTOR_BYTES = 24
_MAX_NONCE = 2**31 - 1
# Of the two bytes of a half float, the one with the exponent; where all its bits are set it is no finite number.
_FINITE = bytes(byte for byte in range(256) if byte & 0x7C != 0x7C)
_WRONG_VECTOR = "a vector is not 12 finite half floats"
_ESCAPE = b"\\u"
_BACKSLASH = b"\\"


class Target(NamedTuple):
    """What a request target says; None where it cannot be read. ``kind`` is ``generated`` or ``validated``."""

    model: str | None
    kind: str | None


def read_target(target: bytes) -> Target:
    """Read the model, which is escaped twice, and the kind from a request target."""
    segments = target.partition(b"?")[0].split(b"/")
    kind = segments[-1].decode("latin-1") if segments[-1] in (b"generated", b"validated") else None
    if kind is None or len(segments) != 5 or segments[1:3] != [b"v2", b"poc-batches"]:
        return Target(None, kind)
    model = unquote_to_bytes(unquote_to_bytes(segments[3]))
    if not model or len(model) > _MAX_MODEL_BYTES:
        return Target(None, kind)
    try:
        return Target(model.decode(), kind)
    except UnicodeDecodeError:
        return Target(None, kind)


class Facts(msgspec.Struct, frozen=True):
    """What a body says; None where it cannot be read.

    ``height`` is the highest one that is in it. ``nonces`` is a range where they are evenly spaced, as a vLLM makes
    them. All of them differ from the ``first`` by multiples of ``spacing``, which is 0 where there is one alone; the
    largest is ``highest``. ``suspicion`` says what no node makes.
    """

    height: int | None = None
    node_num: int | None = None
    nonces: Any = ()
    suspicion: str | None = None
    first: int = 0
    spacing: int = 0
    highest: int = 0


class _Artifact(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    nonce: Annotated[int, msgspec.Meta(ge=0, le=_MAX_NONCE)]
    vector_b64: Annotated[bytes, msgspec.Meta(max_length=_VECTOR_BYTES)] = b""
    k_points_steps: msgspec.Raw = msgspec.Raw()


class _Generated(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly the fields that nodes send, in their spelling; anything else is looked through."""

    public_key: str
    block_hash: str
    block_height: int
    node_id: int
    artifacts: list[_Artifact]
    encoding: msgspec.Raw = msgspec.Raw()
    request_id: str = ""


_DECODER = msgspec.json.Decoder(_Generated)


def read_whole(body: bytes | bytearray) -> Facts | None:
    """Read a body that is as nodes make them; None for any other one, a suspicious one among them."""
    if _BACKSLASH in body:
        return None
    try:
        found = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    artifacts = found.artifacts
    vectors = [artifact.vector_b64 for artifact in artifacts]
    decoded = b"".join(vectors)
    # None is longer than 24 bytes, so that all are as long when their sum is.
    if len(decoded) != _VECTOR_BYTES * len(vectors) and not set(map(len, vectors)) <= {0, _VECTOR_BYTES}:
        return None
    if not _are_finite(decoded):
        return None
    return _facts(found.block_height, found.node_id, [artifact.nonce for artifact in artifacts], None)


def _facts(height: int | None, node_num: int | None, nonces: Sequence[int], suspicion: str | None) -> Facts:
    if not nonces:
        return Facts(height, node_num, (), suspicion)
    spaced = evenly_spaced(nonces)
    if isinstance(spaced, range):
        spacing = spaced.step if len(spaced) > 1 else 0
        return Facts(height, node_num, spaced, suspicion, spaced[0], spacing, spaced[-1])
    return Facts(height, node_num, spaced, suspicion, nonces[0], _spacing(nonces), max(nonces))


class Scan:
    """Takes the pieces of one body in turn, on any one thread."""

    def __init__(self) -> None:
        self._carry = b""
        self._heights: list[int] = []
        self._node_num: int | None = None
        self._nonces = array("q")
        self._suspicion: str | None = None

    def feed(self, piece: bytes | bytearray) -> None:
        """Look through the next piece."""
        text = self._carry + piece
        # A field that is cut in two belongs to the next piece.
        end = text.rfind(b"}", 0, len(text)) + 1
        if not end and len(text) > _MAX_CARRY:
            end = len(text)
        self._carry = text[end:]
        self._look(text[:end])

    def facts(self) -> Facts:
        """Return what was found in the whole body."""
        self._look(self._carry)
        self._carry = b""
        return _facts(max(self._heights, default=None), self._node_num, self._nonces, self._suspicion)

    def _look(self, text: bytes) -> None:
        # Go reads the names of fields in any case.
        lower = text.lower()
        self._heights = sorted({*self._heights, *map(int, _HEIGHT.findall(lower))})[-1:]
        if self._node_num is None and (found := _NODE.search(lower)) is not None:
            self._node_num = int(found[1])
        nonces = list(map(int, _NONCE.findall(lower)))
        if nonces:
            if min(nonces) < 0 or max(nonces) > _MAX_NONCE:
                self._suspicion = "a nonce is below 0 or above 2147483647"
            else:
                self._nonces.extend(nonces)
        if not are_vectors_right(_VECTOR.findall(text)):
            self._suspicion = _WRONG_VECTOR
        if _ESCAPE in text:
            # A name that is written so would not be found.
            self._suspicion = "something is written with escapes, as no node does"


def are_vectors_right(vectors: Sequence[bytes]) -> bool:
    """Tell whether all vectors are 12 finite half floats in base64; empty ones, which later versions send, pass."""
    if not set(map(len, vectors)) <= {0, _VECTOR_CHARACTERS}:
        return False
    try:
        decoded = binascii.a2b_base64(b"".join(vectors), strict_mode=True)
    except binascii.Error:
        return False
    # Padding within would make it shorter.
    is_whole = len(decoded) == _VECTOR_BYTES * sum(map(bool, vectors))
    return is_whole and _are_finite(decoded)


def _are_finite(half_floats: bytes) -> bool:
    """Tell whether little-endian half floats are finite numbers: their second bytes have the exponents."""
    return not half_floats[1::2].translate(None, _FINITE)


def _spacing(nonces: Sequence[int]) -> int:
    """Return the greatest number that divides all differences, 0 where there are none."""
    first, spacing = nonces[0], 0
    for nonce in nonces:
        spacing = math.gcd(spacing, nonce - first)
    return spacing


def evenly_spaced(nonces: Sequence[int]) -> Sequence[int]:
    """Return a range for nonces that are one, which takes no memory; else the nonces, as machine numbers."""
    if not nonces:
        return ()
    if len(nonces) == 1:
        return range(nonces[0], nonces[0] + 1)
    if (step := nonces[1] - nonces[0]) > 0:
        spaced = range(nonces[0], nonces[0] + step * len(nonces), step)
        # Most that are no range differ there.
        if nonces[-1] == spaced[-1] and list(nonces) == list(spaced):
            return spaced
    return array("q", nonces)
