"""Text from outside, as it may be shown in a log, a status or an error."""

from __future__ import annotations

import re

_SHOWN_CHARACTERS = 200
# See dapi.broker.callback_tokens; also one that was cut.
# And dapi.relay.prefix.
_TOKEN = re.compile(r"cb-[0-9]+-[0-9]+-[A-Za-z0-9_-]*|(?<=/k/)[A-Za-z0-9_-]+")


def printable(text: str | bytes) -> str:
    """Return the beginning of a text from outside, without characters that could break a line of the log.

    Callback tokens in it are hidden. Bytes become text, and need not be UTF-8.
    """
    text = text[: 4 * _SHOWN_CHARACTERS]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    shown = without_tokens(text)[:_SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in shown).strip()


def without_tokens(text: str) -> str:
    """Return a text with its callback tokens, and the relay's prefix, hidden."""
    return _TOKEN.sub("(hidden)", text)
