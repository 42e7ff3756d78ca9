"""The JSON answers of a CometBFT node as values: pure, no socket and no clock.

Facts: docs/protocol/chain.md, 'JSON-RPC'. 64-bit numbers are strings in this JSON, bytes are base64, hashes are
upper-case hex. A method's error comes with HTTP status 200 and has its meaning in ``error.data``.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from dapi.chain.numbers import height_of, time_of_block
from dapi.errors import ChainUnavailableError

T = TypeVar("T")

# The SDK quotes all of a message, with its thousands of nonces, in the error of one that travels inside a MsgExec.
# The text before the quotation says which message it was, the text after it what is wrong.
_MAX_LOG_CHARACTERS = 1000


class ChainStatus(msgspec.Struct, frozen=True):
    """Where a node of the chain stands.

    ``block_time_ns`` is the latest block's time (nanoseconds since 1970): it shows how fresh the node is, which
    ``catching_up`` does not. A node without ``has_tx_index`` cannot look up a transaction. The node has the blocks from
    ``earliest_height`` on. ``node`` is the host and port that answered.
    """

    chain_id: str
    height: int
    block_time_ns: int
    block_hash: str
    earliest_height: int
    catching_up: bool
    has_tx_index: bool
    node: str

    @property
    def block(self) -> BlockInfo:
        """The latest block."""
        return BlockInfo(self.chain_id, self.height, self.block_time_ns, self.block_hash)


class Broadcast(enum.StrEnum):
    """The outcome of a broadcast that was not refused: the transaction is, or may be, in a mempool.

    That is no success yet; only a block is (see TxResult).
    """

    ACCEPTED = "accepted"
    ALREADY_THERE = "already_there"
    """These very bytes are in the mempool, or were in a block not long ago."""
    UNKNOWN = "unknown"
    """The node has the bytes and does not know whether its mempool took them: look the hash up."""


class TxResult(msgspec.Struct, frozen=True):
    """A transaction in the block ``height``; it did what it says only when ``code`` is 0.

    ``data`` is what its messages answered: an encoded TxMsgData.
    """

    hash: str
    height: int
    code: int
    codespace: str
    log: str
    data: bytes = b""


class TxLookups(msgspec.Struct, frozen=True):
    """One node's answers about several transactions: ``results`` lacks those that are in no block up to ``status``.

    The same node gave its status first. Nodes index a block shortly after they count it as their latest, so that proves
    that they are in no block from the node's earliest up to height - 1.

    What another node denies is in no ``results`` either, and ``contradiction`` says so in words. Of those in
    ``unsettled`` nothing is known: the other node does not have their block yet.
    """

    status: ChainStatus
    results: dict[str, TxResult]
    unsettled: frozenset[str] = frozenset()
    contradiction: str | None = None


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


class BlockTransactions(msgspec.Struct, frozen=True):
    """A block and the hashes of its transactions (upper-case hex), in their order."""

    block: BlockInfo
    hashes: list[str]


class RpcError(msgspec.Struct, frozen=True):
    """The ``error`` of a JSON-RPC answer."""

    code: int = 0
    message: str = ""
    data: str = ""

    @property
    def text(self) -> str:
        """The part with the meaning, as it may be shown."""
        return shortened(self.data or self.message)


class _Envelope(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: RpcError | None = None


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
        """Return the value; ``node`` is who answered."""
        height = height_of(self.sync_info.latest_block_height)
        return ChainStatus(
            chain_id=self.node_info.network,
            height=height,
            block_time_ns=time_of_block(height, self.sync_info.latest_block_time),
            block_hash=self.sync_info.latest_block_hash,
            earliest_height=height_of(self.sync_info.earliest_block_height),
            catching_up=self.sync_info.catching_up,
            has_tx_index=self.node_info.other.tx_index == "on",
            node=node,
        )


class CheckTxAnswer(msgspec.Struct):
    """Result of ``broadcast_tx_sync``: what CheckTx said."""

    code: int
    codespace: str = ""
    log: str = ""


class _ExecutedTx(msgspec.Struct):
    code: int = 0
    codespace: str = ""
    log: str = ""
    data: bytes | None = None

    def value(self, tx_hash: str, height: int) -> TxResult:
        return TxResult(tx_hash, height, self.code, shortened(self.codespace), shortened(self.log), self.data or b"")


class TxAnswer(msgspec.Struct):
    """Result of ``tx``."""

    hash: str
    height: _Int
    tx_result: _ExecutedTx

    def value(self) -> TxResult:
        """Return the value."""
        return self.tx_result.value(self.hash, height_of(self.height))


class QueryResponse(msgspec.Struct):
    """The application's own answer to a query."""

    code: int = 0
    codespace: str = ""
    log: str = ""
    value: bytes | None = None
    height: _Int = 0


class QueryAnswer(msgspec.Struct):
    """Result of ``abci_query``."""

    response: QueryResponse


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
        """Return the value."""
        header = self.block.header
        height = height_of(header.height)
        return BlockInfo(header.chain_id, height, time_of_block(height, header.time), self.block_id.hash)


class _TxData(msgspec.Struct):
    # Not decoded with the rest: a block has up to 22 MB of it.
    txs: list[msgspec.Raw] | None = None


class _BlockWithData(msgspec.Struct):
    header: _Header
    data: _TxData


class BlockDataAnswer(msgspec.Struct):
    """Result of ``block``, with its transactions."""

    block_id: _BlockId
    block: _BlockWithData

    @property
    def size(self) -> int:
        """The bytes of the transactions in base64."""
        return sum(len(memoryview(tx)) for tx in self.block.data.txs or ())

    def value(self) -> BlockTransactions:
        """Return the value, which takes about 3 ms a megabyte."""
        try:
            hashes = [tx_hash_of(msgspec.json.decode(tx, type=bytes)) for tx in self.block.data.txs or ()]
        except msgspec.MsgspecError as error:
            raise ChainUnavailableError(f"a block with a transaction that cannot be read: {error}") from error
        return BlockTransactions(BlockAnswer(self.block_id, _Block(self.block.header)).value(), hashes)


class BlockResultsAnswer(msgspec.Struct):
    """Result of ``block_results``."""

    height: _Int
    txs_results: list[_ExecutedTx] | None = None

    def value(self, hashes: Mapping[int, str]) -> list[TxResult]:
        """Return the results of the transactions with these hashes, which are given by their place in the block."""
        results = self.txs_results or []
        if hashes and max(hashes) >= len(results):
            raise ChainUnavailableError(f"block {self.height} has more transactions than the {len(results)} results")
        return [results[index].value(tx_hash, height_of(self.height)) for index, tx_hash in hashes.items()]


class _EventData(msgspec.Struct):
    value: BlockAnswer | None = None


class _Event(msgspec.Struct):
    """What comes for a subscription; its confirmation has no ``data``."""

    data: _EventData | None = None


class _EventEnvelope(msgspec.Struct):
    result: _Event | None = None
    error: RpcError | None = None


_EVENT_DECODER = msgspec.json.Decoder(_EventEnvelope)


def encode_request(request_id: int, method: str, params: dict[str, Any]) -> bytes:
    """Return the body of one call, with bytes in base64; a node does not answer a call without an id."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def decode_answer(body: bytes, request_id: int, answer_type: type[T]) -> T | RpcError:
    """Return the result in the body of an answer, or the error in its place.

    Raises ChainUnavailableError when the body has neither, or answers another call.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
        if envelope.error is not None:
            return envelope.error
        if not envelope.result:
            raise ChainUnavailableError("an answer with neither result nor error")
        if envelope.id != request_id:
            raise ChainUnavailableError(f"the answer to call {shortened(str(envelope.id))} instead of {request_id}")
        return msgspec.json.decode(envelope.result, type=answer_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChainUnavailableError(f"an answer that cannot be read: {error}") from error


def decode_block_event(message: bytes) -> BlockInfo | RpcError | None:
    """Return the block of a NewBlock event, the error that ends the subscription, or None for its confirmation.

    Only the block's identity becomes objects, however large the block is. Raises ChainUnavailableError for anything
    else.
    """
    try:
        envelope = _EVENT_DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChainUnavailableError(f"an event that cannot be read: {error}") from error
    if envelope.error is not None:
        return envelope.error
    if envelope.result is None:
        raise ChainUnavailableError("an event with neither result nor error")
    data = envelope.result.data
    return data.value.value() if data is not None and data.value is not None else None


def tx_hash_of(raw: bytes) -> str:
    """Return the hash of a raw transaction: upper-case hex of its SHA-256."""
    return hashlib.sha256(raw).hexdigest().upper()


def shortened(log: str) -> str:
    """Cut the middle out of a text that is too long to be stored and shown, and what would break its line."""
    half = _MAX_LOG_CHARACTERS // 2
    text = log if len(log) <= _MAX_LOG_CHARACTERS else f"{log[:half]} … {log[-half:]}"
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)
