"""Reads from a body what the relay uses of it: stage, node, nonces, and whether its vectors can be.

A callback may hold anything, and what holds nothing of the container's fields is kept and handed on like any other.
What holds some of them has to be written so that dapi and the container read the same in it; what is written in another
way is suspicious (``Facts.suspicion``). Unknown fields are no reason for that: later nodes send some.

A small body that is as nodes make them is read as a whole (``read_whole``). All others are looked through in pieces,
as they come, and never held (``Scan``). Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np

from dapi.relay.columns import MAX_NONCE, VECTOR_CHARACTERS, Nonces, are_vectors_right, read_nonces
from dapi.relay.facts import Facts

_LIST = re.compile(rb'"artifacts": ?\[')
_HEIGHT = re.compile(rb'"block_height"\s*:\s*(-?[0-9]{1,25})')
_OVERLAP = 64
_NONE: Final[Nonces] = np.array([], np.int64)
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


class _Generated(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly the fields that nodes send, in their spelling, and a list without its artifacts."""

    public_key: str
    block_hash: str
    block_height: int
    node_id: int
    artifacts: Annotated[list[None], msgspec.Meta(max_length=0)]
    encoding: msgspec.Raw = msgspec.Raw()
    request_id: str = ""


class _Artifact(msgspec.Struct, gc=False):
    """One that may have other fields, too."""

    nonce: int
    vector_b64: str = ""


_DECODER = msgspec.json.Decoder(_Generated)
_RUN_DECODER = msgspec.json.Decoder(list[_Artifact])
_ANY_DECODER = msgspec.json.Decoder(msgspec.Raw)


def read_whole(body: bytes | bytearray) -> Facts | None:
    """Read a body that is as nodes make them; None for any other one, a suspicious one among them."""
    if (found := _LIST.search(body)) is None or (end := body.find(b"]", found.end())) < 0:
        return None
    start = found.end()
    rest = body[:start] + body[end:]
    # Of two lists of artifacts, the container reads the second one into the first one.
    if _BACKSLASH in rest or any(rest.count(name) != 1 for name in _NAMES):
        return None
    try:
        generated = _DECODER.decode(rest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (nonces := read_nonces(body, start, end) if start < end else _NONE) is None:
        return None
    return _facts(generated.block_height, generated.node_id, nonces, None)


def _facts(height: int | None, node_num: int | None, nonces: Nonces, suspicion: str | None) -> Facts:
    if not nonces.size:
        return Facts(height, node_num, (), suspicion)
    first, steps = int(nonces[0]), np.diff(nonces)
    step = int(steps[0]) if steps.size else 1
    if step > 0 and (steps == step).all():
        # It takes no memory.
        spaced = range(first, first + step * nonces.size, step)
        return Facts(height, node_num, spaced, suspicion, first, step if steps.size else 0, spaced[-1], nonces.size)
    spacing, distinct = int(np.gcd.reduce(steps)), np.unique(nonces).size
    kept = array("q", nonces.tobytes())
    return Facts(height, node_num, kept, suspicion, first, spacing, int(nonces.max()), distinct)


class _OtherFormError(Exception):
    """Something is written in another way than nodes do."""


class _Run(NamedTuple):
    """Objects one behind the other, read as artifacts; ``suspicion`` says what is wrong if they are some."""

    nonces: Nonces
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
        runs = [self._run_of(element) for element in fields.get("artifacts") or ()]
        suspicion = next((run.suspicion for run in runs if run.suspicion is not None), None)
        return _facts(height, node_num, np.concatenate([_NONE, *(run.nonces for run in runs)]), suspicion)

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
    if (nonces := read_nonces(run + b"]}", 0, len(run))) is not None:
        return _Run(nonces, None)
    text = b"[%s]" % run
    try:
        # The other one stops at the first that is no artifact.
        _ANY_DECODER.decode(text)
        artifacts = _RUN_DECODER.decode(text)
    except msgspec.ValidationError:
        return _Run(_NONE, OTHER_FORM)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _OtherFormError from error
    lower = run.lower()
    for name, counts in ((b"nonce", {len(artifacts)}), (b"vector_b64", {0, len(artifacts)})):
        # Each has it once, or none has it; a reader of names in any case finds no more.
        if not lower.count(name) == run.count(b'"%s"' % name) in counts:
            return _Run(_NONE, OTHER_FORM)
    found = [artifact.nonce for artifact in artifacts]
    if min(found) < 0 or max(found) > MAX_NONCE:
        return _Run(_NONE, WRONG_NONCE)
    vectors = [artifact.vector_b64 for artifact in artifacts]
    # Later versions send empty ones.
    is_right = set(map(len, vectors)) <= {0, VECTOR_CHARACTERS} and are_vectors_right("".join(vectors).encode())
    return _Run(np.array(found, np.int64), None if is_right else WRONG_VECTOR)
