"""Asks the network's own api container what it knows. It changes nothing there, and needs no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError

from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.messages.sizes import MIB
from dapi.relay.answers import error_text
from dapi.relay.api_answers import (
    ApiAnswerError,
    ApiNode,
    Epochs,
    read_count,
    read_epochs,
    read_nodes,
    read_start_time,
)

T = TypeVar("T")
_MAX_BYTES = 4 * MIB


class ApiUnavailableError(Exception):
    """The container does not answer, or answers something else; the text says what happened."""


class ApiClient:
    """Reads the container's three ports. Its methods raise ApiUnavailableError.

    ``ca_file`` has the authorities that https servers are checked against, None: the system's.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        callback_url: str,
        public_url: str,
        admin_url: str,
        ca_file: str | None,
        timeout_seconds: float = 3.0,
    ) -> None:
        self._reactor = reactor
        urls = (callback_url, public_url, admin_url)
        self._callback_url, self._public_url, self._admin_url = (url.rstrip("/") for url in urls)
        self._timeout_seconds = timeout_seconds
        self._exchanges = Exchanges(reactor, None, timeout_seconds, ca_file=ca_file)

    async def epochs(self) -> Epochs:
        """Return where the chain is."""
        return await self._ask(f"{self._public_url}/v1/epochs/latest", read_epochs)

    async def nodes(self) -> tuple[ApiNode, ...]:
        """Return the host's nodes."""
        return await self._ask(f"{self._admin_url}/admin/v1/nodes", read_nodes)

    async def start_time(self) -> float:
        """Return when the container was started, in unix seconds."""
        return await self._ask(f"{self._callback_url}/metrics", read_start_time)

    async def count(self, height: int, model: str) -> int | None:
        """Return how many artifacts of a stage and model are on disk there; None: it does not know."""
        query = f"height={height}&model_id={quote(model, safe='')}"
        status, answer = await self._get(f"{self._public_url}/v1/poc/artifacts/state?{query}")
        if status == 404:
            return None
        return self._read("artifacts/state", status, answer, read_count)

    def close(self) -> Deferred[None]:
        """Abort what is left; fires when nothing is."""
        return self._exchanges.close()

    async def _ask(self, url: str, read: Callable[[bytes], T]) -> T:
        status, answer = await self._get(url)
        return self._read(url, status, answer, read)

    def _read(self, what: str, status: int, answer: bytes, read: Callable[[bytes], T]) -> T:
        if status != 200:
            raise ApiUnavailableError(f"{what}: HTTP {status}: {error_text(answer)}")
        try:
            return read(answer)
        except ApiAnswerError as error:
            raise ApiUnavailableError(f"{what}: {error}") from error

    async def _get(self, url: str) -> tuple[int, bytes]:
        asking = Deferred.fromCoroutine(self._exchanges.exchange("GET", url, None, max_bytes=_MAX_BYTES))
        try:
            return await asking.addTimeout(self._timeout_seconds, self._reactor)
        except DeferredTimeoutError:
            raise ApiUnavailableError(f"{url}: no answer within {self._timeout_seconds:g} s") from None
        except (NoAnswerError, AnswerTooLongError) as error:
            raise ApiUnavailableError(f"{url}: {error}") from error
