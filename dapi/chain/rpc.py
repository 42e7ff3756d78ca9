"""The chain's RPC: JSON-RPC calls to CometBFT nodes over HTTP, with fail-over between several of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from hyperlink import URL
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from dapi.chain.rpc_answers import (
    BlockAnswer,
    BlockInfo,
    BroadcastAnswer,
    BroadcastResult,
    ChainStatus,
    QueryAnswer,
    QueryResult,
    Refusal,
    StatusAnswer,
    TxAnswer,
    TxLookup,
    TxResult,
    broadcast_refused,
    decode_answer,
    encode_request,
    error_of_http_status,
    error_of_refusal,
    is_not_found,
    to_base64,
    tx_hash_of,
)
from dapi.errors import ChainRefusedError, ChainUnavailableError, ConfigError
from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.messages.urls import parse_url

T = TypeVar("T")

_SKIP_SECONDS = 5.0
_MAX_ANSWER_BYTES = 1 << 20
# A block of 22 MB of transactions, in base64; a stage's batches of a large network.
_MAX_LARGE_ANSWER_BYTES = 64 << 20
_NOT_FAILED, _CATCHING_UP, _FAILED = range(3)


class _Node:
    """One URL, and until when it comes after the others because of what it did last."""

    def __init__(self, url: str) -> None:
        parts = _http_url(url)
        self.url = parts.to_text()
        self.name = parts.authority()
        self._rank = _NOT_FAILED
        self._until = 0.0

    def rank(self, now: float) -> int:
        return self._rank if now < self._until else _NOT_FAILED

    def put_behind(self, rank: int, until: float) -> None:
        self._rank = rank
        self._until = until


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
    """Calls to the chain's nodes, ``urls`` in order of preference.

    A call goes to the first node that neither failed nor was catching up within the last seconds, and to the next one
    when that fails; those that did come last. ``timeout_seconds`` bounds each try at one node, all of it.

    Every call's Deferred fails with ChainUnavailableError when no node could do it, for whatever reason, and with
    ChainRefusedError when the chain says no. All calls may be repeated, broadcasting the same bytes included. Each try
    has a connection of its own (``agent`` is for tests): CometBFT closes idle ones soon, and a POST on a connection
    that is just being closed fails. Nothing is on the reactor while no call is under way.
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
        """Where the chain stands, by a node that is not catching up if there is one."""
        return self._run(self._status)

    def broadcast_tx_sync(self, raw: bytes) -> Deferred[BroadcastResult]:
        """Offer an encoded TxRaw to a mempool; fires when CheckTx has passed it, or when it was there already.

        Fails with ChainStaleError when the bytes' time has passed, ChainRefusedError when they never will be taken, and
        ChainUnavailableError when they may be offered again as they are. The last one is no proof that nothing arrived.
        """
        tx_hash = tx_hash_of(raw)
        is_first = True

        async def ask(node: _Node) -> BroadcastResult:
            nonlocal is_first
            was_first, is_first = is_first, False
            try:
                answer = await self._ask(node, "broadcast_tx_sync", {"tx": to_base64(raw)}, BroadcastAnswer)
                return broadcast_refused(answer, tx_hash) if isinstance(answer, Refusal) else answer.value()
            except ChainRefusedError as error:
                if was_first:
                    raise
                # The node before may have taken it, and only its answer was lost: a refusal after that proves nothing.
                raise ChainUnavailableError(f"{error}, after another node gave no answer") from error

        return self._run(lambda: self._first_of(ask))

    def tx(self, tx_hash: str) -> Deferred[TxResult | None]:
        """Look a transaction up by its hash in hex; None when it is in no block that the asked node has indexed."""
        return self._run(lambda: self._first_of(lambda node: self._tx(node, tx_hash)))

    def lookup(self, tx_hash: str) -> Deferred[TxLookup]:
        """Look a transaction up and tell how far the asked node is: only both of one node prove an absence."""

        async def ask(node: _Node) -> TxLookup:
            status = await self._status_of(node)
            return TxLookup(status, await self._tx(node, tx_hash))

        return self._run(lambda: self._first_of(ask))

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = _MAX_LARGE_ANSWER_BYTES
    ) -> Deferred[QueryResult]:
        """Query the application: ``path`` like ``/cosmos.auth.v1beta1.Query/AccountInfo``, ``data`` encoded protobuf.

        ``height`` pins the state, None takes the latest. ``max_bytes`` bounds the whole JSON answer (4/3 of the value).
        """
        params = {"path": path, "data": data.hex(), "height": str(height or 0), "prove": False}

        async def ask(node: _Node) -> QueryResult:
            return _result(await self._ask(node, "abci_query", params, QueryAnswer, max_bytes)).value()

        return self._run(lambda: self._first_of(ask))

    def block(self, height: int) -> Deferred[BlockInfo]:
        """Give hash and time of the block at ``height``; ChainUnavailableError as long as no node has it."""

        async def ask(node: _Node) -> BlockInfo:
            params = {"height": str(height)}
            return _result(await self._ask(node, "block", params, BlockAnswer, _MAX_LARGE_ANSWER_BYTES)).value()

        return self._run(lambda: self._first_of(ask))

    def close(self) -> Deferred[None]:
        """Cancel what is under way and refuse every further call; fires when no connection is left."""
        self._is_closed = True
        for call in self._calls.copy():
            call.cancel()
        return self._exchanges.close()

    def _run(self, call: Callable[[], Awaitable[T]]) -> Deferred[T]:
        async def run() -> T:
            if self._is_closed:
                raise ChainUnavailableError("dapi is stopping")
            return await call()

        running: Deferred[T] = Deferred.fromCoroutine(run())
        self._calls.add(running)

        def forget(result: T) -> T:
            self._calls.discard(running)
            return result

        return running.addBoth(forget)

    async def _first_of(self, ask: Callable[[_Node], Awaitable[T]]) -> T:
        """Ask one node after the other, the best first, until one is able to answer."""
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
            node.put_behind(_CATCHING_UP, self._reactor.seconds() + _SKIP_SECONDS)
        return status

    async def _tx(self, node: _Node, tx_hash: str) -> TxResult | None:
        params = {"hash": to_base64(bytes.fromhex(tx_hash)), "prove": False}
        answer = await self._ask(node, "tx", params, TxAnswer, _MAX_LARGE_ANSWER_BYTES)
        if isinstance(answer, Refusal) and is_not_found(answer):
            return None
        return _result(answer).value()

    async def _ask(
        self,
        node: _Node,
        method: str,
        params: dict[str, Any],
        answer_type: type[T],
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> T | Refusal:
        """Make one call to one node; a node that does not answer as it should is put behind the others."""
        self._next_id += 1
        request_id = self._next_id
        try:
            body = await self._exchange(node, encode_request(request_id, method, params), max_bytes)
            return decode_answer(body, request_id, answer_type)
        except ChainUnavailableError as error:
            now = self._reactor.seconds()
            if node.rank(now) != _FAILED:
                self.log.warn("chain node {node} failed at {call}: {reason}", node=node.name, call=method, reason=error)
            node.put_behind(_FAILED, now + _SKIP_SECONDS)
            raise

    async def _exchange(self, node: _Node, request: bytes, max_bytes: int) -> bytes:
        exchange = Deferred.fromCoroutine(self._exchanges.exchange("POST", node.url, request, max_bytes=max_bytes))

        def timed_out(_result: object, seconds: float) -> Failure:
            return Failure(ChainUnavailableError(f"no complete answer within {seconds:g} s"))

        exchange.addTimeout(self._timeout_seconds, self._reactor, onTimeoutCancel=timed_out)
        try:
            status, body = await exchange
        except (AnswerTooLongError, NoAnswerError) as error:
            raise ChainUnavailableError(str(error)) from error
        if status != 200:
            raise error_of_http_status(status, body)
        return body


def _result(answer: T | Refusal) -> T:
    if isinstance(answer, Refusal):
        raise error_of_refusal(answer)
    return answer
