"""What the code of a transaction, from CheckTx or from a block, means for its messages. Pure.

Codes and texts: docs/protocol/chain.md, 'Checks of messages', 'Newer chains' and 'Codes of the SDK', and
docs/protocol/measured.md, 'Transactions on a real chain' and 'Chain nodes that fail'.
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
    """The chain knows the signer by another account number, or not at all: a problem if ours is the right one."""
    GAS_LIMIT = "gas limit"
    """Its gas limit is above what the chain allows in a block: again with that, if it says how much; else a problem."""
    PROBLEM = "problem"
    """Something that people can mend keeps all messages of its kind out: they wait until it is mended."""
    TOO_LARGE = "too large"
    """The transaction has too many bytes."""
    TOO_MUCH = "too much"
    """The transaction cannot be read, or uses too much gas: it may have too many messages."""
    MOVED = "moved"
    """The network runs PoC v2: keep everything, and send nothing until it runs v1 again."""
    FINAL = "final"
    """It never heals."""


_INFERENCE = {
    1108: Outcome.NEXT_BLOCK,
    1128: Outcome.NEXT_BLOCK,
    1160: Outcome.DUPLICATE,
    1161: Outcome.MOVED,
    1163: Outcome.MOVED,
}
_UNREADABLE = 2
TOO_LARGE = 21
"""The SDK's code for a transaction with too many bytes."""
_SDK = {
    _UNREADABLE: Outcome.TOO_MUCH,
    4: Outcome.SIGNATURE,
    5: Outcome.PROBLEM,
    8: Outcome.PROBLEM,
    9: Outcome.SIGNATURE,
    11: Outcome.TOO_MUCH,
    13: Outcome.PROBLEM,
    TOO_LARGE: Outcome.TOO_LARGE,
    41: Outcome.GAS_LIMIT,
}
# A chain with PoC v2 does not know this message at all any more.
_UNKNOWN_MESSAGE = re.compile(r"unable to resolve type URL /inference\.inference\.MsgSubmitPoc(Batch|Validation)")
# These depend on the stage, the kind and the block alone, so they hold for all messages that share them.
_OF_THE_WINDOW = frozenset({1107, 1108, 1128})
# So many go together again when one of their neighbours has failed.
_FEW = 16
_MESSAGE_INDEX = re.compile(r"message index: (\d+)")


def judge(code: int, codespace: str, log: str) -> Outcome:
    """Return what to do after a code; any code that is not known to heal is final."""
    if code == 0:
        return Outcome.CONFIRMED
    match codespace:
        case "inference":
            return _INFERENCE.get(code, Outcome.FINAL)
        case "authz":
            return Outcome.PROBLEM
        case "rpc":
            # Of the RPC itself, which has read nothing but the size.
            return Outcome.TOO_LARGE if code == TOO_LARGE else Outcome.PROBLEM
        case "sdk":
            if code == _UNREADABLE and _UNKNOWN_MESSAGE.search(log):
                return Outcome.MOVED
            return Outcome.SIGN_AGAIN if is_stale(code, log) else _SDK.get(code, Outcome.FINAL)
    return Outcome.FINAL


def messages_blamed(
    messages: Sequence[Message], code: int, codespace: str, log: str, *, is_indexed: bool
) -> list[Message] | None:
    """Return those of a transaction's messages that its code is about, None when the answer does not say which.

    The SDK's log gives the index of the first message that failed, if ``is_indexed``: an earlier version of dapi put
    all messages into one.
    """
    are_alike = len({(message.height, message.kind) for message in messages}) == 1
    if len(messages) == 1 or (codespace == "inference" and code in _OF_THE_WINDOW and are_alike):
        return list(messages)
    found = _MESSAGE_INDEX.search(log) if is_indexed else None
    index = int(found.group(1)) if found is not None else len(messages)
    return [messages[index]] if index < len(messages) else None


def half_of(messages: Sequence[Message]) -> int:
    """Return how many of these messages may share the next transaction when nobody knows which of them failed."""
    return max(1, len(messages) // 2)


def limit_after_neighbour(others: Sequence[Message]) -> int:
    """Return how many of the others of a message that failed may share their next transaction.

    A few go together. Of many, or of those where one failed before, more may fail, and a block names only one in each
    transaction: a quarter of them. So 200 are in blocks after 5 at most, however many fail; in halves they take 9, and
    their window may have ended by then.
    """
    is_first = not any(message.max_messages for message in others)
    return len(others) if is_first and len(others) <= _FEW else max(1, len(others) // 4)
