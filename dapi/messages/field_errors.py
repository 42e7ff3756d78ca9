"""msgspec's errors, as the path of the wrong field and what is wrong with it."""

from __future__ import annotations

import msgspec

_MISSING = "Object missing required field `"
_UNKNOWN = "Object contains unknown field `"


def field_and_reason(error: msgspec.ValidationError, unknown: str = "is not a known field") -> tuple[str, str]:
    """Return the path of the wrong field (``$.batch.nonces[1]``; ``$`` is the whole value) and what is wrong with it.

    msgspec puts both into one text; of a field that is missing or unknown it gives only the object's path.
    ``unknown`` is the reason for an unknown field.
    """
    reason, _, path = str(error).rpartition(" - at `")
    if not reason:
        reason, path = path, "$"
    path = path.removesuffix("`")
    for begin, meaning in ((_MISSING, "is missing"), (_UNKNOWN, unknown)):
        if reason.startswith(begin):
            return f"{path}.{reason.removeprefix(begin).removesuffix('`')}", meaning
    return path, reason
