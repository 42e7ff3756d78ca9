"""What the code of a transaction, from CheckTx or from a block, means for its messages.

Facts: docs/protocol/chain.md, 'Checks of messages' (codespace ``inference``) and 'Codes of the SDK' (``sdk``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from dapi.chain.rpc_errors import is_stale
from dapi.submission.rows import Message


class Outcome(enum.Enum):
    """What to do with a message after an answer."""

    CONFIRMED = "confirmed"
    """It is on the chain."""
    SIGN_AGAIN = "sign again"
    """The transaction can do nothing any more, for a reason of its own: its messages go again in a new one."""
    NEXT_BLOCK = "next block"
    """It is outside its window, which may open yet: again in the next block, unless the window has ended."""
    DUPLICATE = "duplicate"
    """The chain has one already: confirmed if it is this one, final if it is another."""
    SIGNATURE = "signature"
    """The chain knows the signer by another account number, or not at all: final if ours is the right one."""
    MOVED = "moved"
    """The network has moved to PoC v2: keep everything, send nothing."""
    FINAL = "final"
    """It never heals."""


_INFERENCE = {1108: Outcome.NEXT_BLOCK, 1128: Outcome.NEXT_BLOCK, 1160: Outcome.DUPLICATE, 1161: Outcome.MOVED}
_SIGNATURE = frozenset({4, 9})
# These depend on the stage, the kind and the block alone, so they hold for all messages that share them.
_OF_THE_WINDOW = frozenset({1107, 1108, 1128})
_MESSAGE_INDEX = re.compile(r"message index: (\d+)")


def judge(code: int, codespace: str, log: str) -> Outcome:
    """Return what to do after a code; any code that is not known to heal is final."""
    if code == 0:
        return Outcome.CONFIRMED
    if codespace == "inference":
        return _INFERENCE.get(code, Outcome.FINAL)
    if codespace != "sdk":
        return Outcome.FINAL
    if is_stale(code, log):
        return Outcome.SIGN_AGAIN
    return Outcome.SIGNATURE if code in _SIGNATURE else Outcome.FINAL


def messages_blamed(
    messages: Sequence[Message], code: int, codespace: str, log: str, *, are_wrapped: bool
) -> list[Message] | None:
    """Return those of a transaction's messages that its code is about, None when the answer does not say which.

    The SDK's log gives the index of the first message that failed. Where all ``are_wrapped`` into one message, that
    index says nothing.
    """
    if len(messages) == 1:
        return list(messages)
    found = None if are_wrapped else _MESSAGE_INDEX.search(log)
    index = int(found.group(1)) if found is not None else None
    first = messages[index] if index is not None and index < len(messages) else None
    if codespace == "inference" and code in _OF_THE_WINDOW:
        alike = {(message.height, message.kind) for message in ([first] if first is not None else messages)}
        if len(alike) == 1:
            return [message for message in messages if (message.height, message.kind) in alike]
    return [first] if first is not None else None
