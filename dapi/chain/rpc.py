"""The chain's RPC: JSON-RPC calls to CometBFT nodes over HTTP, with fail-over between several of them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hyperlink import URL
from twisted.internet.defer import Deferred, fail
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from dapi.chain.rpc_answers import (
    BlockAnswer,
    BlockInfo,
    Broadcast,
    ChainStatus,
    CheckTxAnswer,
    QueryAnswer,
    QueryResult,
    RpcError,
    StatusAnswer,
    TxAnswer,
    TxLookup,
    TxResult,
    decode_answer,
    encode_request,
    to_base64,
)
from dapi.chain.rpc_errors import broadcast_outcome, error_of_call, error_of_http_status, is_not_found, query_result
from dapi.errors import ChainRefusedError, ChainUnavailableError, ConfigError
from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.messages.sizes import MIB
from dapi.messages.urls import parse_url

T = TypeVar("T")

_SKIP_SECONDS = 5.0
_MAX_ANSWER_BYTES = MIB
# A block of 22 MB of transactions, in base64; a stage's batches of a large network.
_MAX_LARGE_ANSWER_BYTES = 64 * MIB


class _Rank(enum.IntEnum):
    """In which order nodes are asked."""

    USABLE = 0
    CATCHING_UP = 1
    FAILED = 2


class _Node:
    """One URL, its rank, and until when the rank holds."""

    def __init__(self, url: str) -> None:
        parts = _http_url(url)
        self.url = parts.to_text()
        self.name = parts.authority()
        self._rank = _Rank.USABLE
        self._until = 0.0

    def rank(self, now: float) -> _Rank:
        return self._rank if now < self._until else _Rank.USABLE

    def put_behind(self, rank: _Rank, now: float) -> None:
        self._rank = rank
        self._until = now + _SKIP_SECONDS


def _http_url(text: str) -> URL:
    try:
        url = parse_url(text)
        # The network's own configuration writes tcp:// for the same thing.
        url = url.replace(scheme="http") if url.scheme == "tcp" else url
        if url.scheme in {"http", "https"} and url.host and url.port != 0 and not url.userinfo:
            return url
    except ValueError:
        pass
    # Not quoted: it may hold a password.
    raise ConfigError("the chain's URL must look like http://host:26657, without user and password")


class ChainRpc:
    """Calls to the chain's nodes; ``urls`` are in order of preference.

    A call goes to the first node that has neither failed nor been catching up within the last 5 s. When that node fails
    the call goes to the next one; nodes that failed come last. Each attempt at one node may take ``timeout_seconds``.

    The Deferred of a call fails with ChainUnavailableError when no node was able to answer, and with ChainRefusedError
    when the chain says no. Every call may be repeated, a broadcast of the same bytes too. Each attempt has a connection
    of its own: CometBFT closes idle connections soon, and a POST on one that is just closing fails. Nothing is on the
    reactor while no call runs. ``agent`` replaces the network.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, urls: Sequence[str], *, agent: IAgent | None = None, timeout_seconds: float = 10
    ) -> None:
        if not urls:
            raise ConfigError("the chain needs at least one URL, like http://host:26657")
        self._reactor = reactor
        self._nodes = [_Node(url) for url in urls]
        self._exchanges = Exchanges(reactor, agent, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._next_id = 0
        self._calls: set[Deferred[Any]] = set()
        self._is_closed = False

    def status(self) -> Deferred[ChainStatus]:
        """Fire with the status of the first node that is not catching up, or of one that is when there is no other."""
        return self._run(self._status())

    def broadcast_tx_sync(self, raw: bytes) -> Deferred[Broadcast]:
        """Offer an encoded TxRaw to a node's mempool; fires when CheckTx has passed it, or when it was there already.

        Fails with ChainStaleError when the bytes have had their time, ChainRefusedError when no mempool will ever take
        them, and ChainUnavailableError when the same bytes may be offered again. A failure with ChainUnavailableError
        does not prove that no mempool has them.
        """
        is_first = True

        async def ask(node: _Node) -> Broadcast:
            nonlocal is_first
            was_first, is_first = is_first, False
            try:
                params = {"tx": to_base64(raw)}
                return broadcast_outcome(await self._ask(node, "broadcast_tx_sync", params, CheckTxAnswer))
            except ChainRefusedError as error:
                if was_first:
                    raise
                # The node before may have taken it, and only its answer was lost: a refusal after that proves nothing.
                raise ChainUnavailableError(f"{error}, after another node gave no answer") from error

        return self._run(self._first_of(ask))

    def lookup(self, tx_hash: str) -> Deferred[TxLookup]:
        """Look up a transaction by its hash in hex; fires with the asked node's status, too.

        Only both from the same node prove that the transaction is in no block.
        """

        async def ask(node: _Node) -> TxLookup:
            status = await self._status_of(node)
            return TxLookup(status, await self._tx(node, tx_hash))

        return self._run(self._first_of(ask))

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = _MAX_LARGE_ANSWER_BYTES
    ) -> Deferred[QueryResult]:
        """Query the application: ``path`` like ``/cosmos.auth.v1beta1.Query/AccountInfo``, ``data`` encoded protobuf.

        ``height`` pins the state; None means the latest. ``max_bytes`` bounds the answer's JSON (4/3 of its value).
        """
        params = {"path": path, "data": data.hex(), "height": str(height or 0), "prove": False}

        async def ask(node: _Node) -> QueryResult:
            return query_result(_result(await self._ask(node, "abci_query", params, QueryAnswer, max_bytes)))

        return self._run(self._first_of(ask))

    def block(self, height: int) -> Deferred[BlockInfo]:
        """Fire with hash and time of the block at ``height``; fails with ChainUnavailableError while no node has it."""

        async def ask(node: _Node) -> BlockInfo:
            params = {"height": str(height)}
            return _result(await self._ask(node, "block", params, BlockAnswer, _MAX_LARGE_ANSWER_BYTES)).value()

        return self._run(self._first_of(ask))

    def close(self) -> Deferred[None]:
        """Cancel the calls that run and refuse all others; fires when no connection is left."""
        self._is_closed = True
        for call in self._calls.copy():
            call.cancel()
        return self._exchanges.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> Deferred[T]:
        if self._is_closed:
            call.close()
            return fail(ChainUnavailableError("dapi is stopping"))
        running: Deferred[T] = Deferred.fromCoroutine(call)
        self._calls.add(running)

        def forget(result: T) -> T:
            self._calls.discard(running)
            return result

        return running.addBoth(forget)

    async def _first_of(self, ask: Callable[[_Node], Awaitable[T]]) -> T:
        """Ask one node after the other, the best first, until one answers."""
        now = self._reactor.seconds()
        failures = []
        for node in sorted(self._nodes, key=lambda node: node.rank(now)):
            try:
                return await ask(node)
            except ChainUnavailableError as error:
                failures.append(f"{node.name}: {error}")
        raise ChainUnavailableError("; ".join(failures))

    async def _status(self) -> ChainStatus:
        behind = None

        async def ask(node: _Node) -> ChainStatus:
            nonlocal behind
            status = await self._status_of(node)
            if status.catching_up:
                behind = behind or status
                raise ChainUnavailableError("is catching up")
            return status

        try:
            return await self._first_of(ask)
        except ChainUnavailableError:
            if behind is None:
                raise
            return behind

    async def _status_of(self, node: _Node) -> ChainStatus:
        status = _result(await self._ask(node, "status", {}, StatusAnswer)).value(node.name)
        if status.catching_up:
            node.put_behind(_Rank.CATCHING_UP, self._reactor.seconds())
        return status

    async def _tx(self, node: _Node, tx_hash: str) -> TxResult | None:
        params = {"hash": to_base64(bytes.fromhex(tx_hash)), "prove": False}
        answer = await self._ask(node, "tx", params, TxAnswer, _MAX_LARGE_ANSWER_BYTES)
        if isinstance(answer, RpcError) and is_not_found(answer):
            return None
        return _result(answer).value()

    async def _ask(
        self,
        node: _Node,
        method: str,
        params: dict[str, Any],
        answer_type: type[T],
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> T | RpcError:
        """Make one call to one node; put a node that fails behind the others."""
        self._next_id += 1
        request_id = self._next_id
        try:
            body = await self._exchange(node, encode_request(request_id, method, params), max_bytes)
            return decode_answer(body, request_id, answer_type)
        except ChainUnavailableError as error:
            now = self._reactor.seconds()
            if node.rank(now) is not _Rank.FAILED:
                self.log.warn("chain node {node} failed at {call}: {reason}", node=node.name, call=method, reason=error)
            node.put_behind(_Rank.FAILED, now)
            raise

    async def _exchange(self, node: _Node, request: bytes, max_bytes: int) -> bytes:
        exchange = Deferred.fromCoroutine(self._exchanges.exchange("POST", node.url, request, max_bytes=max_bytes))
        try:
            status, body = await exchange.addTimeout(self._timeout_seconds, self._reactor)
        except DeferredTimeoutError as error:
            raise ChainUnavailableError(f"no complete answer within {self._timeout_seconds:g} s") from error
        except (AnswerTooLongError, NoAnswerError) as error:
            raise ChainUnavailableError(str(error)) from error
        if status != 200:
            raise error_of_http_status(status, body)
        return body


def _result(answer: T | RpcError) -> T:
    if isinstance(answer, RpcError):
        raise error_of_call(answer)
    return answer
