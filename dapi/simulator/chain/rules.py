"""What the chain refuses, by which rules, and with which codes."""

from __future__ import annotations

import msgspec


class TxRefused(Exception):  # noqa: N818
    """A transaction, or a message of it, is refused with a code."""

    def __init__(self, codespace: str, code: int, log: str) -> None:
        super().__init__(log)
        self.codespace = codespace
        self.code = code
        self.log = log


class Rules(msgspec.Struct):
    """What differs between versions of the chain, and what governance sets; may be changed while the chain runs.

    The defaults are those of the newest version with PoC v1. None as a limit: there is none.
    """

    max_exec_messages: int | None = 99
    """At most so many messages in one MsgExec (docs/protocol/measured.md, 'Transactions on a real chain')."""
    max_nonces: int | None = 10_000
    max_id_characters: int | None = 128
    second_validation_is_refused: bool = True
    """With 1160; older versions overwrite."""
    windows_in_check_tx: bool = False
    """Refuse with 1107 and 1108 already when broadcast."""
    poc_v2: bool = False
    """Say ``poc_v2_enabled``, refuse batches with 1161, also when broadcast, and do not know validations any more."""
    max_gas: int | None = None
    """The most gas that a block may use; a transaction with a higher limit is refused."""
    epoch_reward: int = 1_000_000
    """What an epoch's members share, in the chain's smallest coin."""


def check(is_right: bool, log: str) -> None:
    """Raise TxRefused (sdk 18) with ``log`` unless something is as it must be."""
    if not is_right:
        raise TxRefused("sdk", 18, f"{log}: invalid request")
