"""What a node's refusals mean: pure.

Every refusal becomes one of three errors. ChainUnavailableError: try again, here or elsewhere. ChainStaleError: these
bytes have had their time, sign anew. ChainRefusedError: the node says no. Facts: docs/protocol/chain.md, 'Answers to a
broadcast' and 'Codes of the SDK', docs/protocol/measured.md, 'Queries on a real chain' and 'Chain nodes that fail'.
``rpc`` is our own codespace, for what the RPC itself refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dapi.chain.numbers import height_of
from dapi.chain.rpc_answers import Broadcast, CheckTxAnswer, QueryAnswer, QueryResult, RpcError, shortened
from dapi.errors import (
    ChainError,
    ChainPrunedError,
    ChainRefusedError,
    ChainStaleError,
    ChainUnavailableError,
    MempoolFullError,
)

# The SDK's codes that say nothing about the content of a transaction.
_IN_CACHE, _MEMPOOL_FULL, _TOO_LARGE = 19, 20, 21
_INVALID_REQUEST, _FUTURE_HEIGHT, _NOT_FOUND = 18, 26, 38
_STALE_CODES = {30, 32, 42}
_STALE_TEXTS = ("ttl exceeds", "already passed", "already used timeout")
# Before a node's first block.
_NOT_READY_TEXT = "is not ready"
_MEMPOOL_FULL_TEXTS = ("mempool is full", "considered as full")
_PRUNED_STATE_TEXT = "failed to load state"
_PRUNED_BLOCK = re.compile(r"height \d+ is not available, lowest height is (\d+)")
# The second is said by a node with ``discard_abci_responses``.
_PRUNED_RESULTS_TEXTS = ("could not find results for height", "not persisting finalize block responses")
_POC_V2 = 1161
# JSON-RPC's own codes for a request that is wrong in itself.
_OUR_FAULT = {-32600, -32601, -32602}


def is_stale(code: int, log: str) -> bool:
    """Whether a code of the SDK says that a transaction's time is over, too far ahead, or used already."""
    return code in _STALE_CODES or (code == _INVALID_REQUEST and any(text in log for text in _STALE_TEXTS))


def is_not_found(error: RpcError) -> bool:
    """Whether the error of a look-up says that the transaction is in no block."""
    return error.code not in _OUR_FAULT and "not found" in error.data


def failure_of_all(failures: Sequence[tuple[str, ChainError]]) -> ChainUnavailableError:
    """Return one error for those of all nodes, which come with the nodes' names.

    It is a MempoolFullError when all are, and a ChainPrunedError when one is: then no node has it that can be asked.
    """
    text = "; ".join(f"{name}: {error}" for name, error in failures)
    errors = [error for _, error in failures]
    pruned = [error for error in errors if isinstance(error, ChainPrunedError)]
    if pruned:
        lowest = [error.lowest for error in pruned if error.lowest is not None]
        return ChainPrunedError(text, min(lowest, default=None))
    if errors and all(isinstance(error, MempoolFullError) for error in errors):
        return MempoolFullError(text)
    return ChainUnavailableError(text)


def broadcast_outcome(answer: CheckTxAnswer | RpcError) -> Broadcast:
    """Return what a broadcast came to, or raise one of the three errors."""
    if isinstance(answer, RpcError):
        if "tx already exists in cache" in answer.text:
            return Broadcast.ALREADY_THERE
        if "broadcast confirmation not received" in answer.text:
            return Broadcast.UNKNOWN
        raise error_of_call(answer)
    if answer.code == 0:
        return Broadcast.ACCEPTED
    log, codespace = shortened(answer.log), shortened(answer.codespace)
    if answer.codespace == "sdk":
        if answer.code == _IN_CACHE:
            return Broadcast.ALREADY_THERE
        if answer.code == _MEMPOOL_FULL:
            raise MempoolFullError(log)
        if is_stale(answer.code, answer.log):
            raise ChainStaleError(answer.code, codespace, log)
    raise ChainRefusedError(answer.code, codespace, log)


def query_result(answer: QueryAnswer) -> QueryResult:
    """Return the result of a query, or raise ChainRefusedError with the application's code.

    Raises ChainUnavailableError where another node may know more: the asked one does not have the height yet, or has no
    block at all, or (ChainPrunedError) does not have the state of that height any more.
    """
    response = answer.response
    if response.codespace == "sdk":
        if response.code == _FUTURE_HEIGHT or (response.code == _INVALID_REQUEST and _NOT_READY_TEXT in response.log):
            raise ChainUnavailableError(shortened(response.log))
        if response.code == _NOT_FOUND and _PRUNED_STATE_TEXT in response.log:
            raise ChainPrunedError(shortened(response.log))
    if response.code:
        raise ChainRefusedError(response.code, shortened(response.codespace), shortened(response.log))
    return QueryResult(response.value or b"", height_of(response.height))


def error_of_call(error: RpcError) -> ChainError:
    """Return the error for a JSON-RPC error that has no special meaning to its call."""
    if error.code in _OUR_FAULT:
        code = _TOO_LARGE if "too large" in error.text else error.code
        return ChainRefusedError(code, "rpc", error.text)
    if "Tx too large" in error.text:
        return ChainRefusedError(_TOO_LARGE, "sdk", error.text)
    if any(text in error.text for text in _MEMPOOL_FULL_TEXTS):
        return MempoolFullError(error.text)
    if pruned := _PRUNED_BLOCK.search(error.text):
        return ChainPrunedError(error.text, int(pruned.group(1)))
    if any(text in error.text for text in _PRUNED_RESULTS_TEXTS):
        return ChainPrunedError(error.text)
    return ChainUnavailableError(error.text)


def error_of_http_status(status: int, body: bytes) -> ChainError:
    """Return the error for an HTTP status other than 200: of a body that a node cannot read, or from a proxy."""
    text = shortened(body[:500].decode("utf-8", "replace"))
    if status == 413 or (status == 400 and "request body too large" in text):
        return ChainRefusedError(_TOO_LARGE, "rpc", f"HTTP {status}: {text}")
    if status == 503 and "poc_v2" in text:
        return ChainRefusedError(_POC_V2, "inference", f"HTTP {status}: {text}")
    return ChainUnavailableError(f"HTTP {status}: {text}")
