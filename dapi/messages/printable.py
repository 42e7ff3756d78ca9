"""Text from outside, as it may be shown in a log, a status or an error."""

from __future__ import annotations

_SHOWN_CHARACTERS = 200


def printable(text: str | bytes) -> str:
    """Return the beginning of a text from outside, without characters that could break a line of the log.

    Bytes become text, and need not be UTF-8.
    """
    if isinstance(text, bytes):
        text = text[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_CHARACTERS])
    return shown.strip()
