"""Decides about one callback as the real container does: the same checks in the same order, with the same words.

Facts: docs/protocol/poc-v2.md, 'Answers'.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

_WRONG_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Refused(Exception):  # noqa: N818
    """The callback is answered with this status and body."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.body = json.dumps({"error": error}, separators=(",", ":")).encode()


class Callback(NamedTuple):
    """What the path of a callback says: the model as it is escaped there, and ``generated`` or ``validated``."""

    escaped_model: bytes
    kind: str


class Artifact(msgspec.Struct, frozen=True):
    """One artifact; unknown fields are ignored."""

    nonce: _INT64 = 0
    vector_b64: str = ""
    k_points_steps: list[_INT64] | None = None


class Generated(msgspec.Struct, frozen=True):
    """What is read of a ``generated`` body; all that is missing is zero."""

    block_height: _INT64 = 0
    node_id: _INT64 = 0
    artifacts: list[Artifact] | None = None


class Validated(msgspec.Struct, frozen=True):
    """What is read of a ``validated`` body; all that is missing is zero."""

    request_id: str = ""
    block_hash: str = ""
    block_height: _INT64 = 0
    public_key: str = ""
    node_id: _INT64 = 0
    n_total: _INT64 = 0
    n_mismatch: _INT64 = 0
    mismatch_nonces: tuple[_INT64, ...] | None = None
    p_value: float = 0.0
    fraud_detected: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether line D makes a vote of it; what exactly D asks for is not known, and no nonce is surely too few."""
        return self.n_total > 0


_FIELDS = tuple(
    b'"%s"' % name.encode() for struct in (Artifact, Generated, Validated) for name in struct.__struct_fields__
)
# The two letters beyond ASCII that are k and s in another case.
_FOLDS = str.maketrans({"\u212a": "k", "\u017f": "s"})


class Vote(NamedTuple):
    """What the container hands over to be sent to the chain."""

    model: str
    result: Validated


def route(raw_path: bytes) -> Callback:
    """Return what a request target asks for; raises Refused (404) for all that the real router does not know.

    The raw path is split, so an escaped slash is no slash. A wrong escape is refused (400) before anybody is asked.
    """
    path = raw_path.partition(b"?")[0]
    if _WRONG_ESCAPE.search(path):
        raise Refused(400, "Bad Request")
    segments = path.split(b"/")
    is_known = (
        len(segments) == 5
        and not segments[0]
        and segments[1:3] == [b"v2", b"poc-batches"]
        and segments[4] in (b"generated", b"validated")
    )
    if not is_known:
        raise Refused(404, "Not Found")
    return Callback(segments[3], segments[4].decode())


def model_of(escaped: bytes) -> str:
    """Return the model id of a path, which is unescaped twice; raises Refused."""
    once = unquote_to_bytes(escaped)
    if not once:
        raise Refused(400, "model_id required")
    if _WRONG_ESCAPE.search(once):
        raise Refused(400, "invalid model_id")
    model = unquote_to_bytes(once)
    try:
        return model.decode()
    except UnicodeDecodeError:
        raise Refused(400, "invalid model_id") from None


def bind(content_type: str | None, body: bytes, wanted: Any) -> Any:
    """Read a JSON body as the real binding does; an empty one, and null, bind to zeros. Raises Refused."""
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(400, {"message": "Unsupported Media Type"})
    if not body.strip():
        return wanted()
    try:
        found = msgspec.json.decode(body if _is_plain(body) else _plain(body), type=wanted | None)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Refused(400, {"message": str(error)}) from None
    return wanted() if found is None else found


def _is_plain(body: bytes) -> bool:
    """Tell whether all that is read in any case is written in its usual one, without escapes."""
    if not body.isascii() or b"\\" in body:
        return False
    lower = body.lower()
    return all(lower.count(name) == body.count(name) for name in _FIELDS)


def _plain(body: bytes) -> bytes:
    """Return a body as Go reads it: fields in any case, the last of two, and U+FFFD for what is no UTF-8."""
    text = body.decode("utf-8", "replace")
    return json.dumps(json.loads(text, object_pairs_hook=_folded, parse_constant=_refuse)).encode()


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name.translate(_FOLDS).lower(): value for name, value in pairs}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def check_vectors(artifacts: list[Artifact], *, takes_steps: bool) -> None:
    """Refuse the whole body for one vector that is empty or no base64; later versions take steps in its place."""
    for artifact in artifacts:
        if takes_steps and artifact.k_points_steps:
            continue
        if not artifact.vector_b64:
            raise Refused(400, "empty artifact vector")
        try:
            base64.b64decode(artifact.vector_b64, validate=True)
        except binascii.Error:
            raise Refused(400, "invalid base64 in artifact vector") from None


def check_key(public_key: str) -> None:
    """Refuse a key that is no hex, in the words of the real one; an empty and a short one pass, as there."""
    for letter in public_key:
        if letter not in "0123456789abcdefABCDEF":
            raise Refused(500, f"encoding/hex: invalid byte: U+{ord(letter):04X} {letter!r}")
    if len(public_key) % 2:
        raise Refused(500, "encoding/hex: odd length hex string")
