"""What the chain answered to the messages of a transaction that is in a block with code 0.

A claim that is not paid has code 0, too: only its answer says so (docs/protocol/chain.md, 'Claims').
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from dapi.chain.rpc_answers import shortened
from dapi.chain.transactions import EXEC_TYPE_URL
from dapi.messages import Kind
from dapi.messages.cosmos_pb2 import MsgExecResponse, TxMsgData
from dapi.messages.host_pb2 import MsgClaimRewardsResponse
from dapi.submission.rows import Message

_PAID = re.compile(r"paid (\d+)")


class ClaimAnswer(NamedTuple):
    """What became of a claim: ``reason`` is what its row says, with the amount that ``amount_paid`` finds in it."""

    claim: Message
    is_paid: bool
    reason: str | None


def claim_answers(messages: Sequence[Message], data: bytes) -> list[ClaimAnswer]:
    """Return what the chain answered to the claims of a transaction; ``data`` is its encoded TxMsgData.

    A claim whose answer cannot be read counts as paid, without a reason: what is still owed tells then.
    """
    if all(message.kind is not Kind.CLAIM for message in messages):
        return []
    answers = _answers(data)
    if len(answers) != len(messages):
        return [ClaimAnswer(message, True, None) for message in messages if message.kind is Kind.CLAIM]
    return [
        _claim_answer(message, answer)
        for message, answer in zip(messages, answers, strict=True)
        if message.kind is Kind.CLAIM
    ]


def amount_paid(reason: str | None) -> int | None:
    """Return the amount in the reason of a claim, in the chain's smallest coin; None where it is not known."""
    found = _PAID.match(reason or "")
    return int(found.group(1)) if found is not None else None


def _claim_answer(claim: Message, encoded: bytes) -> ClaimAnswer:
    try:
        answer = MsgClaimRewardsResponse.FromString(encoded)
    except DecodeError:
        return ClaimAnswer(claim, True, None)
    result = shortened(answer.result)
    if answer.amount:
        return ClaimAnswer(claim, True, f"paid {answer.amount}: {result}")
    return ClaimAnswer(claim, False, f"not paid: {result}")


def _answers(data: bytes) -> list[bytes]:
    """Return the answers to the messages, in their order; those inside a MsgExec are one level deeper."""
    answers: list[bytes] = []
    try:
        for response in TxMsgData.FromString(data).msg_responses:
            is_exec = response.type_url == f"{EXEC_TYPE_URL}Response"
            answers += MsgExecResponse.FromString(response.value).results if is_exec else [response.value]
    except DecodeError:
        return []
    return answers
