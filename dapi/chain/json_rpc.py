"""One JSON-RPC call to one of the chain's nodes, over HTTP. What its answer means is not known here.

The answer to a query may be too large to be held. Then the reactor's thread and one of its pool take turns:

    receive a piece ──▶ AnswerReader and ValueReader read it, on a thread ──▶ receive the next one ──▶ … ──▶ the end

While the thread works, the connection is paused, so that hardly more than one piece is in memory. To receive meanwhile
would not be faster: the interpreter runs one thread at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.web.iweb import IAgent

from dapi.chain.answer_reader import AnswerReader, ValueReader
from dapi.chain.nodes import ChainNode, ChainNodes
from dapi.chain.rpc_answers import QueryAnswer, RpcError, decode_answer, encode_request
from dapi.chain.rpc_errors import error_of_http_status
from dapi.errors import ChainUnavailableError
from dapi.http.exchange import MAX_ANSWER_BYTES, AnswerTooLongError, Exchanges, NoAnswerError
from dapi.messages.sizes import MIB
from dapi.timing.pool_thread import PoolThread

T = TypeVar("T")

# Some milliseconds of work for the thread.
_PIECE_BYTES = MIB // 2


class CallLimits(NamedTuple):
    """How long a call may take, and how large its answer may be."""

    seconds: float
    max_bytes: int


class _SlowOrLargeError(ChainUnavailableError):
    """The answer did not come in time, or is too large: with another call the node may be quite well."""


class JsonRpc:
    """Makes calls, and tells ``nodes`` of those that a node did not answer.

    Each call has a connection of its own: CometBFT closes idle connections soon, and a POST on one that is just closing
    fails. Nothing is on the reactor while no call runs. ``agent`` replaces the network.
    """

    def __init__(self, reactor: Any, nodes: ChainNodes, agent: IAgent | None, connect_timeout_seconds: float) -> None:
        self._reactor = reactor
        self._nodes = nodes
        self._exchanges = Exchanges(reactor, agent, connect_timeout_seconds)
        self._thread = PoolThread(reactor)
        self._next_id = 0

    async def call(
        self, node: ChainNode, method: str, params: dict[str, Any], answer_type: type[T], limits: CallLimits
    ) -> T | RpcError:
        """Return the answer, or the error in its place.

        Raises ChainUnavailableError when there is none that can be read, and ChainRefusedError for an HTTP status that
        says more than that.
        """
        self._next_id += 1
        request_id = self._next_id
        with self._failures_told(node, method):
            body = await self._exchange(node, encode_request(request_id, method, params), limits)
            return decode_answer(body, request_id, answer_type)

    async def call_in_pieces(
        self, node: ChainNode, method: str, params: dict[str, Any], value: ValueReader[Any], limits: CallLimits
    ) -> QueryAnswer | RpcError:
        """Make a query, and feed ``value`` with its value as it comes; return the answer as AnswerReader does.

        ``limits.seconds`` are for the answer to begin, and for each piece of it. Raises what ``call`` raises, and what
        ``value`` raises; when CancelledError is raised, nothing of the call is left.
        """
        self._next_id += 1
        reader = AnswerReader(self._next_id, value)
        request = encode_request(self._next_id, method, params)
        with self._failures_told(node, method):
            try:
                await self._read_in_pieces(node, request, reader, limits)
            except NoAnswerError as error:
                raise ChainUnavailableError(str(error)) from error
            return reader.finish()

    def close(self) -> Deferred[None]:
        """Abort the connections that are left; fires when they are gone."""
        return self._exchanges.close()

    @contextlib.contextmanager
    def _failures_told(self, node: ChainNode, method: str) -> Iterator[None]:
        try:
            yield
        except ChainUnavailableError as error:
            # A node that executes a large block answers queries late. That a node is frozen shows with its status.
            if not isinstance(error, _SlowOrLargeError):
                self._nodes.call_failed(node, method, str(error))
            raise

    async def _read_in_pieces(self, node: ChainNode, request: bytes, reader: AnswerReader, limits: CallLimits) -> None:
        answer = await self._in_time(self._exchanges.open("POST", node.url, request), limits)
        try:
            if answer.status != 200:
                raise error_of_http_status(answer.status, await self._in_time(answer.read(MAX_ANSWER_BYTES), limits))
            received = 0
            while piece := await self._in_time(answer.read(_PIECE_BYTES), limits):
                received += len(piece)
                if received > limits.max_bytes:
                    raise _SlowOrLargeError(f"the answer is longer than {limits.max_bytes} bytes")
                await self._thread.run(reader.feed, piece)
        finally:
            answer.abort()

    async def _in_time(self, step: Coroutine[Any, Any, T], limits: CallLimits) -> T:
        try:
            return await Deferred.fromCoroutine(step).addTimeout(limits.seconds, self._reactor)
        except DeferredTimeoutError as error:
            raise _SlowOrLargeError(f"no complete answer within {limits.seconds:g} s") from error

    async def _exchange(self, node: ChainNode, request: bytes, limits: CallLimits) -> bytes:
        exchange = self._exchanges.exchange("POST", node.url, request, max_bytes=limits.max_bytes)
        try:
            status, body = await self._in_time(exchange, limits)
        except AnswerTooLongError as error:
            raise _SlowOrLargeError(str(error)) from error
        except NoAnswerError as error:
            raise ChainUnavailableError(str(error)) from error
        if status != 200:
            raise error_of_http_status(status, body)
        return body
