"""What is known of a callback: from its request target, and from its body."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

_MAX_MODEL_BYTES = 512
# What Go's PathEscape leaves as it is, beside letters, digits and -_.~
_PATH_SAFE = "$&+:=@"


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
