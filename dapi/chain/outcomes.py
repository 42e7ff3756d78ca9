"""What a transaction's code, from CheckTx or from a block, means for the message that it is about.

Codes and texts from the network's chain (codespace ``inference``) and from the Cosmos SDK (codespace ``sdk``).
"""

from __future__ import annotations

import enum
import re


class Outcome(enum.Enum):
    """What to do with a message after an answer."""

    DONE = "done"
    """It is on the chain."""
    SIGN_AGAIN = "sign again"
    """This transaction can do nothing any more, for a reason of its own: the message goes again in a new one."""
    NEXT_BLOCK = "next block"
    """Outside the window, which may open yet: again in the next block, unless the window has ended."""
    SENT_BEFORE = "sent before"
    """The chain has one already: done if it is ours, final if it is not."""
    MOVED = "moved"
    """The network has moved to PoC v2: keep everything, send nothing."""
    FINAL = "final"
    """It never heals."""


_INFERENCE = {
    1108: Outcome.NEXT_BLOCK,
    1128: Outcome.NEXT_BLOCK,
    1160: Outcome.SENT_BEFORE,
    1161: Outcome.MOVED,
}
_TIMED_OUT = frozenset({30, 42})
_MESSAGE_INDEX = re.compile(r"message index: (\d+)")


def judge(code: int, codespace: str) -> Outcome:
    """Tell what to do; any code that is not known to heal is final."""
    if code == 0:
        return Outcome.DONE
    if codespace == "inference":
        return _INFERENCE.get(code, Outcome.FINAL)
    if codespace == "sdk" and code in _TIMED_OUT:
        return Outcome.SIGN_AGAIN
    return Outcome.FINAL


def culprit(log: str) -> int | None:
    """Return the index of the message that a transaction failed on; None when the SDK's log does not tell it."""
    found = _MESSAGE_INDEX.search(log)
    return int(found.group(1)) if found else None
