"""What an answer of the api container means for the payload that it is about. Pure.

Facts: docs/protocol/poc-v2.md, 'Answers'.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from dapi.messages.printable import printable

_WORDS = 200


class Meaning(enum.Enum):
    """What to do with a payload after an answer."""

    TAKEN = "it is in the container's memory"
    AWAY = "the container cannot be reached: try one payload each second"
    CLOSED = "its window is not open: again while it may open yet"
    AGAIN = "again in a few seconds"
    UNKNOWN_NODE = "its node is not registered: again each 30 s"
    MISROUTED = "nothing is wrong with the payload, and something with the way: again in a few seconds"
    NEVER = "it will never be taken"
    UNREADABLE = "its body cannot be read from dapi's own disk now: again in a few seconds"


class Judgement(NamedTuple):
    """A meaning, with the answer in words; ``status`` is its HTTP status, None where no answer came."""

    meaning: Meaning
    reason: str
    status: int | None = None


# By the status; 503 and 400 depend on the words.
_OF_A_STATUS = {
    **dict.fromkeys((408, 429, 502, 504), Meaning.AWAY),
    **dict.fromkeys((413, 415, 422), Meaning.NEVER),
    **dict.fromkeys((500, 501, 503, 505), Meaning.AGAIN),
}
_OF_WORDS = {
    (503, "not in PoC generate phase"): Meaning.CLOSED,
    (503, "not in PoC validate phase"): Meaning.CLOSED,
    (400, "block_height is not the active PoC stage"): Meaning.CLOSED,
    (400, "unknown node_num"): Meaning.UNKNOWN_NODE,
}


def judge(status: int, body: bytes, *, is_callback: bool) -> Judgement:
    """Return what an answer means; no answer at all is AWAY.

    ``is_callback`` says that the target is a known one, which the container answers with an empty 200: another 200 is
    of something else that stands in between.
    """
    text = error_text(body)
    reason = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    if 200 <= status < 300:
        return Judgement(Meaning.MISROUTED if body and is_callback else Meaning.TAKEN, reason, status)
    meaning = _OF_WORDS.get((status, text)) or _OF_A_STATUS.get(status)
    if meaning is None:
        meaning = Meaning.NEVER if status == 400 else Meaning.MISROUTED
    return Judgement(meaning, reason, status)


def error_text(body: bytes) -> str:
    """Return the words of an error, cut and escaped; of an answer without such words, its beginning."""
    if not body:
        return ""
    try:
        error = msgspec.json.decode(body, type=dict)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return printable(body[:_WORDS])
    return printable(str(text).encode()[:_WORDS])
