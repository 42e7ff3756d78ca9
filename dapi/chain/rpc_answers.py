"""What a CometBFT node answers, made into values and errors of ours: pure, no socket and no clock.

Facts: docs/protocol/chain.md, 'JSON-RPC' and 'Answers to a broadcast'. 64-bit numbers are strings in this JSON, bytes
are base64, hashes are upper-case hex, a method's error comes with HTTP status 200 and says in ``error.data`` what it
means.
"""

from __future__ import annotations

import base64
import calendar
import enum
import hashlib
import re
from typing import Annotated, Any, TypeVar

import msgspec

from dapi.errors import ChainError, ChainRefusedError, ChainStaleError, ChainUnavailableError

T = TypeVar("T")

# The SDK's codes that are no verdict on the content of a transaction.
_IN_CACHE, _MEMPOOL_FULL, _TOO_LARGE = 19, 20, 21
_INVALID_REQUEST = 18
# The asked node has not come to the height of a query yet.
_FUTURE_HEIGHT = 26
_TIME_IS_OVER = {30, 32, 42}
_STALE_WORDS = ("ttl exceeds", "already passed", "already used timeout")
_POC_V2 = 1161
# JSON-RPC's own codes for a request that is wrong in itself.
_OUR_FAULT = {-32600, -32601, -32602}

# The SDK quotes all of a message, with its thousands of nonces, in the error of one that travels inside a MsgExec.
# Which message it was stands before that, and what is wrong with it after.
_MAX_LOG_CHARACTERS = 1000

_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))")


class ChainStatus(msgspec.Struct, frozen=True):
    """Where a node of the chain stands.

    ``block_time_ns`` is the latest block's own time (nanoseconds since 1970): how fresh the node is shows there, not in
    ``catching_up``. ``has_tx_index`` false means that this node can look no transaction up. ``node`` is the host and
    port that answered.
    """

    chain_id: str
    height: int
    block_time_ns: int
    block_hash: str
    earliest_height: int
    catching_up: bool
    has_tx_index: bool
    node: str


class Broadcast(enum.StrEnum):
    """What became of a broadcast that was not refused."""

    ACCEPTED = "accepted"
    ALREADY_THERE = "already_there"
    """These very bytes are in the mempool, or were in a block not long ago."""
    UNKNOWN = "unknown"
    """The node took them and does not know what came of it: look the hash up."""


class BroadcastResult(msgspec.Struct, frozen=True):
    """A transaction is, or may be, in a mempool: that is no success yet, only a block is (see TxResult)."""

    outcome: Broadcast
    hash: str
    code: int = 0
    codespace: str = ""
    log: str = ""


class TxResult(msgspec.Struct, frozen=True):
    """A transaction in the block ``height``; it did what it says only when ``code`` is 0."""

    hash: str
    height: int
    code: int
    codespace: str
    log: str


class TxLookup(msgspec.Struct, frozen=True):
    """One node's word on a transaction: ``result`` is None when it is in no block up to ``status``.

    The status was asked for first and of the same node. Nodes index a block shortly after they count it as their
    latest, so 'in no block up to height - 1' is what a None proves.
    """

    status: ChainStatus
    result: TxResult | None


class QueryResult(msgspec.Struct, frozen=True):
    """The answer to an ABCI query: encoded protobuf, and the height whose state it shows."""

    value: bytes
    height: int


class BlockInfo(msgspec.Struct, frozen=True):
    """A block's identity; ``hash`` is upper-case hex as the node wrote it, which is how ML nodes must get it."""

    chain_id: str
    height: int
    time_ns: int
    hash: str


class Refusal(msgspec.Struct, frozen=True):
    """The ``error`` of a JSON-RPC answer."""

    code: int = 0
    message: str = ""
    data: str = ""

    @property
    def words(self) -> str:
        """The useful part of it."""
        return self.data or self.message


class _Envelope(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: Refusal | None = None


_Int = int | Annotated[str, msgspec.Meta(pattern=r"^-?\d{1,20}$")]


class _Other(msgspec.Struct, frozen=True):
    tx_index: str = "on"


class _NodeInfo(msgspec.Struct):
    network: str
    other: _Other = _Other()


class _SyncInfo(msgspec.Struct):
    latest_block_height: _Int
    latest_block_time: str
    latest_block_hash: str = ""
    earliest_block_height: _Int = 0
    catching_up: bool = False


class StatusAnswer(msgspec.Struct):
    """Result of ``status``."""

    node_info: _NodeInfo
    sync_info: _SyncInfo

    def value(self, node: str) -> ChainStatus:
        """Make the value; ``node`` is who answered."""
        return ChainStatus(
            chain_id=self.node_info.network,
            height=int(self.sync_info.latest_block_height),
            block_time_ns=parse_time_ns(self.sync_info.latest_block_time),
            block_hash=self.sync_info.latest_block_hash,
            earliest_height=int(self.sync_info.earliest_block_height),
            catching_up=self.sync_info.catching_up,
            has_tx_index=self.node_info.other.tx_index != "off",
            node=node,
        )


class BroadcastAnswer(msgspec.Struct):
    """Result of ``broadcast_tx_sync``: what CheckTx said."""

    code: int
    hash: str
    codespace: str = ""
    log: str = ""

    def value(self) -> BroadcastResult:
        """Sort it: in the mempool, there already, or one of the three errors."""
        log = _bounded(self.log)
        if self.code == 0:
            return BroadcastResult(Broadcast.ACCEPTED, self.hash, 0, self.codespace, log)
        if self.codespace == "sdk":
            if self.code == _IN_CACHE:
                return BroadcastResult(Broadcast.ALREADY_THERE, self.hash, self.code, self.codespace, log)
            if self.code == _MEMPOOL_FULL:
                raise ChainUnavailableError(log)
            if is_stale(self.code, self.log):
                raise ChainStaleError(self.code, self.codespace, log)
        raise ChainRefusedError(self.code, self.codespace, log)


class _ExecutedTx(msgspec.Struct):
    code: int = 0
    codespace: str = ""
    log: str = ""


class TxAnswer(msgspec.Struct):
    """Result of ``tx``."""

    hash: str
    height: _Int
    tx_result: _ExecutedTx

    def value(self) -> TxResult:
        """Make the value."""
        executed = self.tx_result
        return TxResult(self.hash, int(self.height), executed.code, executed.codespace, _bounded(executed.log))


class _QueryResponse(msgspec.Struct):
    code: int = 0
    codespace: str = ""
    log: str = ""
    value: bytes | None = None
    height: _Int = 0


class QueryAnswer(msgspec.Struct):
    """Result of ``abci_query``."""

    response: _QueryResponse

    def value(self) -> QueryResult:
        """Make the value, or raise ChainRefusedError with the application's code.

        ChainUnavailableError where another node may know more: the asked one has not come to the height yet.
        """
        response = self.response
        if (response.codespace, response.code) == ("sdk", _FUTURE_HEIGHT):
            raise ChainUnavailableError(response.log)
        if response.code:
            raise ChainRefusedError(response.code, response.codespace, response.log)
        return QueryResult(response.value or b"", int(response.height))


class _Header(msgspec.Struct):
    chain_id: str
    height: _Int
    time: str


class _Block(msgspec.Struct):
    header: _Header


class _BlockId(msgspec.Struct):
    hash: str


class BlockAnswer(msgspec.Struct):
    """Result of ``block``."""

    block_id: _BlockId
    block: _Block

    def value(self) -> BlockInfo:
        """Make the value."""
        header = self.block.header
        return BlockInfo(header.chain_id, int(header.height), parse_time_ns(header.time), self.block_id.hash)


class _EventData(msgspec.Struct):
    value: BlockAnswer | None = None


class _Event(msgspec.Struct):
    """What comes for a subscription; its confirmation has no ``data``."""

    data: _EventData | None = None


class _EventEnvelope(msgspec.Struct):
    result: _Event | None = None
    error: Refusal | None = None


_EVENT_DECODER = msgspec.json.Decoder(_EventEnvelope)


def encode_request(request_id: int, method: str, params: dict[str, Any]) -> bytes:
    """Make the body of one call; without an id there would be no answer."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def decode_answer(body: bytes, request_id: int, answer_type: type[T]) -> T | Refusal:
    """Read the body of an answer: the result, or the error that stands in its place.

    Raises ChainUnavailableError when it is neither, or the answer to another call.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
        if envelope.error is not None:
            return envelope.error
        if not envelope.result:
            raise ChainUnavailableError("an answer with neither result nor error")
        if envelope.id != request_id:
            raise ChainUnavailableError(f"the answer to call {envelope.id!r} instead of {request_id}")
        return msgspec.json.decode(envelope.result, type=answer_type)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ChainUnavailableError(f"an answer that cannot be read: {error}") from error


def decode_block_event(message: bytes) -> BlockInfo | Refusal | None:
    """Read a message about a subscription to NewBlock: a block, the error that ends it, or None for its confirmation.

    Of a block, however large, only the identity is made into objects. Raises ChainUnavailableError when it is nothing
    of this kind.
    """
    try:
        envelope = _EVENT_DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ChainUnavailableError(f"an event that cannot be read: {error}") from error
    if envelope.error is not None:
        return envelope.error
    if envelope.result is None:
        raise ChainUnavailableError("an event with neither result nor error")
    data = envelope.result.data
    return data.value.value() if data is not None and data.value is not None else None


def is_stale(code: int, log: str) -> bool:
    """Whether a code of the SDK's says that a transaction's time is over, too far ahead, or used already."""
    return code in _TIME_IS_OVER or (code == _INVALID_REQUEST and any(words in log for words in _STALE_WORDS))


def error_of_refusal(refusal: Refusal) -> ChainError:
    """Sort a JSON-RPC error that means nothing special to the call that got it."""
    if refusal.code in _OUR_FAULT:
        code = _TOO_LARGE if "too large" in refusal.words else refusal.code
        return ChainRefusedError(code, "rpc", refusal.words)
    if "Tx too large" in refusal.words:
        return ChainRefusedError(_TOO_LARGE, "sdk", refusal.words)
    return ChainUnavailableError(refusal.words)


def error_of_http_status(status: int, body: bytes) -> ChainError:
    """Sort an answer whose HTTP status is not 200: the node does so for bodies it cannot read, proxies for all else."""
    text = body[:500].decode("utf-8", "replace")
    if status == 413 or (status == 400 and "request body too large" in text):
        return ChainRefusedError(_TOO_LARGE, "rpc", f"HTTP {status}: {text}")
    if status == 503 and "poc_v2" in text:
        return ChainRefusedError(_POC_V2, "inference", f"HTTP {status}: {text}")
    return ChainUnavailableError(f"HTTP {status}: {text}")


def broadcast_refused(refusal: Refusal, tx_hash: str) -> BroadcastResult:
    """Sort the JSON-RPC error of a broadcast: there already, unknown, or raise what it is."""
    if "tx already exists in cache" in refusal.words:
        return BroadcastResult(Broadcast.ALREADY_THERE, tx_hash, log=refusal.words)
    if "broadcast confirmation not received" in refusal.words:
        return BroadcastResult(Broadcast.UNKNOWN, tx_hash, log=refusal.words)
    raise error_of_refusal(refusal)


def is_not_found(refusal: Refusal) -> bool:
    """Whether the JSON-RPC error of a look-up says that the transaction is in no block."""
    return refusal.code not in _OUR_FAULT and "not found" in refusal.data


def tx_hash_of(raw: bytes) -> str:
    """Give the hash that a raw transaction is looked up by: upper-case hex of its SHA-256."""
    return hashlib.sha256(raw).hexdigest().upper()


def to_base64(data: bytes) -> str:
    """Write bytes the way a JSON-RPC parameter wants them."""
    return base64.b64encode(data).decode("ascii")


def _bounded(log: str) -> str:
    half = _MAX_LOG_CHARACTERS // 2
    return log if len(log) <= _MAX_LOG_CHARACTERS else f"{log[:half]} … {log[-half:]}"


def parse_time_ns(text: str) -> int:
    """Read an RFC 3339 time of up to nine decimals as whole nanoseconds since 1970.

    Raises ChainUnavailableError on anything else. No float is involved: the last digits matter.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ChainUnavailableError(f"no time: {text[:40]!r}")
    *parts, fraction, sign, hours, minutes = match.groups()
    try:
        year, month, day, hour, minute, second = (int(part) for part in parts)
        seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    except ValueError as error:
        raise ChainUnavailableError(f"no time: {text[:40]!r}") from error
    if sign is not None:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
