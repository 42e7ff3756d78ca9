"""What msgspec says of a wrong value, as the path of the field and what is wrong with it."""

from __future__ import annotations

import msgspec

_MISSING = "Object missing required field `"
_UNKNOWN = "Object contains unknown field `"


def field_and_reason(error: msgspec.ValidationError, unknown: str = "is not a known field") -> tuple[str, str]:
    """Return the path of the wrong field (``$.batch.nonces[1]``; ``$`` is the whole value) and what is wrong with it.

    msgspec tells both in one text, and names a field that is missing, or that it does not know, by its object's path.
    ``unknown`` is what is said of the latter.
    """
    reason, _, path = str(error).rpartition(" - at `")
    if not reason:
        reason, path = path, "$"
    path = path.removesuffix("`")
    for begin, meaning in ((_MISSING, "is missing"), (_UNKNOWN, unknown)):
        if reason.startswith(begin):
            return f"{path}.{reason.removeprefix(begin).removesuffix('`')}", meaning
    return path, reason
