"""One JSON-RPC call to one of the chain's nodes, over HTTP. What its answer means is not known here."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.web.iweb import IAgent

from dapi.chain.nodes import ChainNode, ChainNodes
from dapi.chain.rpc_answers import RpcError, StatusAnswer, decode_answer, encode_request
from dapi.chain.rpc_errors import error_of_http_status
from dapi.errors import ChainUnavailableError
from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError

T = TypeVar("T")


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
        try:
            body = await self._exchange(node, encode_request(request_id, method, params), limits)
            return decode_answer(body, request_id, answer_type)
        except ChainUnavailableError as error:
            # A node that executes a large block answers queries late; a frozen one does not even tell its status.
            if answer_type is StatusAnswer or not isinstance(error, _SlowOrLargeError):
                self._nodes.call_failed(node, method, str(error))
            raise

    def close(self) -> Deferred[None]:
        """Abort the connections that are left; fires when they are gone."""
        return self._exchanges.close()

    async def _exchange(self, node: ChainNode, request: bytes, limits: CallLimits) -> bytes:
        exchange = Deferred.fromCoroutine(
            self._exchanges.exchange("POST", node.url, request, max_bytes=limits.max_bytes)
        )
        try:
            status, body = await exchange.addTimeout(limits.seconds, self._reactor)
        except DeferredTimeoutError as error:
            raise _SlowOrLargeError(f"no complete answer within {limits.seconds:g} s") from error
        except AnswerTooLongError as error:
            raise _SlowOrLargeError(str(error)) from error
        except NoAnswerError as error:
            raise ChainUnavailableError(str(error)) from error
        if status != 200:
            raise error_of_http_status(status, body)
        return body
