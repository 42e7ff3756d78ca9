"""Reads from a callback what the relay uses of it: model, kind, stage, node, nonces, and whether its vectors can be.

A callback may hold anything, and what holds nothing of the container's fields is kept and handed on like any other.
What holds some of them has to be written so that dapi and the container read the same in it; what is written in another
way is suspicious (``Facts.suspicion``). Unknown fields are no reason for that: later nodes send some.

A small body that is as nodes make them is decoded (``read_whole``). All others are looked through in pieces, as they
come, and never held (``Scan``). Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

_MAX_MODEL_BYTES = 512
# What Go's PathEscape leaves as it is, beside letters, digits and -_.~
_PATH_SAFE = "$&+:=@"
_HEIGHT = re.compile(rb'"block_height"\s*:\s*(-?[0-9]{1,25})')
_OVERLAP = 64
_VECTOR_CHARACTERS = 32
_VECTOR_BYTES = 24
_MAX_NONCE = 2**31 - 1
# Of the two bytes of a half float, the one with the exponent; where all its bits are set it is no finite number.
_FINITE = bytes(byte for byte in range(256) if byte & 0x7C != 0x7C)
_BACKSLASH = b"\\"
_NAMES = (b'"block_height"', b'"node_id"', b'"artifacts"')
# All that is not an artifact: some 200 bytes of a node's body.
_MAX_REST = 256 * 1024
# Each piece of a body has one or two.
_MAX_RUNS = 2048
# Objects without objects in them, one behind the other.
_RUN = re.compile(rb"\{[^{}]*+\}(?:\s*+,\s*+\{[^{}]*+\})*+")
# What holds none of these, in any spelling, tells the container nothing.
_HINTS = (b"nonce", b"vector", b"_height", b"artifact", b"\\u")
_HINT_BYTES = 8

WRONG_VECTOR: Final = "a vector is not 12 finite half floats"
WRONG_NONCE: Final = "a nonce is below 0 or above 2147483647"
WITH_ESCAPES: Final = "something is written with escapes, as no node does"
OTHER_FORM: Final = "its fields are not written as nodes write them"


class Target(NamedTuple):
    """What a request target says; None where it cannot be read. ``kind`` is ``generated`` or ``validated``."""

    model: str | None
    kind: str | None


def read_target(target: bytes) -> Target:
    """Read the model, which is escaped twice, and the kind from a request target.

    A model that is spelled as no node spells it is the spelling itself, cut: the container may read another one.
    """
    segments = target.partition(b"?")[0].split(b"/")
    kind = segments[-1].decode("latin-1") if segments[-1] in (b"generated", b"validated") else None
    if kind is None or len(segments) != 5 or segments[1:3] != [b"v2", b"poc-batches"] or not segments[3]:
        return Target(None, kind)
    return Target(_read_model(segments[3].decode("latin-1")), kind)


def _read_model(spelling: str) -> str:
    if len(spelling) > 3 * 3 * _MAX_MODEL_BYTES:
        return spelling[:_MAX_MODEL_BYTES]
    model = unquote_to_bytes(unquote_to_bytes(spelling)).decode("utf-8", "replace")
    once = quote(model, safe=_PATH_SAFE)
    is_usual = spelling in (once, quote(once, safe=_PATH_SAFE)) and len(model) <= _MAX_MODEL_BYTES
    return model if is_usual else spelling[:_MAX_MODEL_BYTES]


class Facts(msgspec.Struct, frozen=True):
    """What a body says; None where it cannot be read.

    ``height`` is the highest one that is in it. ``nonces`` is a range where they are evenly spaced, as a vLLM makes
    them; ``distinct`` is how many different ones they are. All of them differ from the ``first`` by multiples of
    ``spacing``, which is 0 where there is one alone; the largest is ``highest``. ``suspicion`` says what no node makes.
    """

    height: int | None = None
    node_num: int | None = None
    nonces: Any = ()
    suspicion: str | None = None
    first: int = 0
    spacing: int = 0
    highest: int = 0
    distinct: int = 0


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


class _OtherArtifact(msgspec.Struct, gc=False):
    """One with fields that are not known."""

    nonce: int
    vector_b64: str = ""


_DECODER = msgspec.json.Decoder(_Generated)
_RUN_DECODER = msgspec.json.Decoder(list[_Artifact])
_OTHER_DECODER = msgspec.json.Decoder(list[_OtherArtifact])
_ANY_DECODER = msgspec.json.Decoder(msgspec.Raw)


def read_whole(body: bytes | bytearray) -> Facts | None:
    """Read a body that is as nodes make them; None for any other one, a suspicious one among them."""
    # Of two lists of artifacts, the container reads the second one into the first one.
    if _BACKSLASH in body or any(body.count(name) != 1 for name in _NAMES):
        return None
    try:
        found = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not _are_right([artifact.vector_b64 for artifact in found.artifacts]):
        return None
    return _facts(found.block_height, found.node_id, [artifact.nonce for artifact in found.artifacts], None)


def _are_right(vectors: Sequence[bytes]) -> bool:
    """Tell whether all vectors, none of which is longer than 24 bytes, are 12 finite half floats, or empty."""
    decoded = b"".join(vectors)
    # All are as long when their sum is.
    if len(decoded) != _VECTOR_BYTES * len(vectors) and not set(map(len, vectors)) <= {0, _VECTOR_BYTES}:
        return False
    return _are_finite(decoded)


def _facts(height: int | None, node_num: int | None, nonces: Sequence[int], suspicion: str | None) -> Facts:
    if not nonces:
        return Facts(height, node_num, (), suspicion)
    spaced = evenly_spaced(nonces)
    if isinstance(spaced, range):
        spacing = spaced.step if len(spaced) > 1 else 0
        return Facts(height, node_num, spaced, suspicion, spaced[0], spacing, spaced[-1], len(spaced))
    return Facts(height, node_num, spaced, suspicion, nonces[0], _spacing(nonces), max(nonces), len(frozenset(nonces)))


class _OtherFormError(Exception):
    """Something is written in another way than nodes do."""


class _Run(NamedTuple):
    """Objects one behind the other, read as artifacts; ``suspicion`` says what is wrong if they are some."""

    nonces: Sequence[int]
    suspicion: str | None


class Scan:
    """Takes the pieces of one body in turn, on any one thread.

    Each run of objects is read at once, and ``{"": number of the run}`` stands for it in what is left, which is read
    at the end. So each byte is read as a JSON reader does, and little of the body is ever held.
    """

    def __init__(self) -> None:
        self._carry = b""
        self._rest = bytearray()
        self._runs: list[_Run] = []
        self._has_begun = False
        self._problem: str | None = None
        self._seen = b""
        self._has_hint = False
        self._heights: list[int] = []

    def feed(self, piece: bytes | bytearray) -> None:
        """Look through the next piece."""
        if _BACKSLASH in piece:
            self._problem = WITH_ESCAPES
        if not self._has_hint:
            seen = (self._seen + piece).lower()
            self._has_hint = any(hint in seen for hint in _HINTS)
            self._seen = seen[-_HINT_BYTES:]
        text = self._carry + piece
        # What is cut in two belongs to the next piece.
        end = text.rfind(b"}", 0, len(text)) + 1
        if self._problem is None and len(text) - end > _MAX_REST:
            self._problem = OTHER_FORM
        if self._problem is not None:
            self._look(text)
            self._carry = text[-_OVERLAP:]
            return
        self._look(text[:end])
        self._carry = text[end:]

    def facts(self) -> Facts:
        """Return what was found in the whole body."""
        self._look(self._carry)
        self._carry = b""
        if self._problem is None:
            try:
                return self._read_rest()
            except _OtherFormError:
                self._problem = OTHER_FORM
        return Facts(max(self._heights, default=None), suspicion=self._problem if self._has_hint else None)

    def _look(self, text: bytes) -> None:
        # Go reads the names of fields in any case.
        self._heights = sorted({*self._heights, *map(int, _HEIGHT.findall(text.lower()))})[-1:]
        if self._problem is not None:
            return
        begin = 0
        if not self._has_begun:
            # The first object is the whole.
            begin = text.find(b"{") + 1
            self._has_begun = begin > 0
        try:
            self._rest += text[:begin] + _RUN.sub(self._take_run, text[begin:])
        except _OtherFormError:
            self._problem = OTHER_FORM
        if len(self._rest) > _MAX_REST:
            self._problem = OTHER_FORM

    def _take_run(self, found: re.Match[bytes]) -> bytes:
        if len(self._runs) == _MAX_RUNS:
            raise _OtherFormError
        self._runs.append(_read_run(found[0]))
        return b'{"":%d}' % (len(self._runs) - 1)

    def _read_rest(self) -> Facts:
        whole = _load(bytes(self._rest))
        if not isinstance(whole, tuple):
            raise _OtherFormError
        fields = _fields(whole, ("block_height", "node_id", "artifacts"))
        height, node_num = fields.get("block_height"), fields.get("node_id")
        if not all(number is None or type(number) is int for number in (height, node_num)):
            raise _OtherFormError
        nonces, suspicion = array("q"), None
        for element in fields.get("artifacts") or ():
            run = self._run_of(element)
            nonces.extend(run.nonces)
            suspicion = suspicion or run.suspicion
        return _facts(height, node_num, nonces, suspicion)

    def _run_of(self, element: Any) -> _Run:
        if not isinstance(element, tuple) or len(element) != 1 or element[0][0] != "":
            raise _OtherFormError
        number: int = element[0][1]
        return self._runs[number]


def _load(text: bytes) -> Any:
    """Return what JSON says, objects as tuples of pairs; raises _OtherFormError."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise _OtherFormError from error


def _fields(pairs: Sequence[tuple[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return those fields; raises _OtherFormError where one is there twice, or in a spelling that Go reads, too."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name.casefold() in names:
            if name in found or name not in names:
                raise _OtherFormError
            found[name] = value
    return found


def _read_run(run: bytes) -> _Run:
    """Read objects as artifacts; raises _OtherFormError for what is no JSON."""
    text = b"[%s]" % run
    try:
        artifacts = _RUN_DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_other_run(run.lower(), run, text)
    vectors = [artifact.vector_b64 for artifact in artifacts]
    nonces = array("q", [artifact.nonce for artifact in artifacts])
    return _Run(nonces, None if _are_right(vectors) else WRONG_VECTOR)


def _read_other_run(lower: bytes, run: bytes, text: bytes) -> _Run:
    """Read objects that have other fields, too, or that are no artifacts."""
    try:
        # The others stop at the first that is no artifact.
        _ANY_DECODER.decode(text)
        artifacts = _OTHER_DECODER.decode(text)
    except msgspec.ValidationError:
        return _Run((), OTHER_FORM)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _OtherFormError from error
    for name, counts in ((b"nonce", {len(artifacts)}), (b"vector_b64", {0, len(artifacts)})):
        # Each has it once, or none has it; a reader of names in any case finds no more.
        if not lower.count(name) == run.count(b'"%s"' % name) in counts:
            return _Run((), OTHER_FORM)
    nonces = [artifact.nonce for artifact in artifacts]
    if min(nonces) < 0 or max(nonces) > _MAX_NONCE:
        return _Run((), WRONG_NONCE)
    are_right = are_vectors_right([artifact.vector_b64.encode() for artifact in artifacts])
    return _Run(array("q", nonces), None if are_right else WRONG_VECTOR)


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
