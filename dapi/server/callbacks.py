# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The callback routes: where an ML node brings what its WebSocket did not take.

A node POSTs a bare batch, without a time limit of its own, drops it on any 2xx, and otherwise tries again for ever. So
each request is answered in time, and 200 (with an empty body) is said only of what is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request

from dapi.errors import DapiError, MessageError, StoreBrokenError, UnknownNodeError
from dapi.http.answers import HttpError, answer, body_of, error_answer, new_app, shielded, status_of
from dapi.http.site import JsonRequest
from dapi.messages import Kind, Receipt, Via, decode_generated, decode_validated
from dapi.poc.batch_handler import BatchHandler

# Below /v1 as ML nodes know them, and below /mlnode/v1 as later ones do.
_BASES = ("/v1/poc-batches", "/mlnode/v1/poc-batches")
_SECONDS_BETWEEN_LINES = 60.0


class Worker(Protocol):
    """What the callbacks need of a node's worker."""

    @property
    def batch_handler(self) -> BatchHandler:
        """The handler of this node's batches."""


class Workers(Protocol):
    """What the callbacks need of the broker."""

    def worker_by_num(self, num: int) -> Worker:
        """Return the worker of the node with this number.

        Raise UnknownNodeError when there is none, and NotReadyError while the nodes are not loaded yet.
        """


class CallbackCounts(msgspec.Struct):
    """How many batches came by HTTP and were stored, by kind, and how many were not answered 200, by reason.

    ``late`` ones took too long to store, ``gone`` ones lost their client first; both may be on disk by now.
    """

    generated: int = 0
    validated: int = 0
    bad_message: int = 0
    unknown_node: int = 0
    store_busy: int = 0
    store_broken: int = 0
    late: int = 0
    gone: int = 0


class Callbacks:
    """Takes the batches that ML nodes POST.

    ``unnamed_handler`` gets the validated ones: nothing in them names the node that sends. ``answer_seconds`` is how
    long a node waits for the disk at most; it is less than the deadline of the whole request, and the storing goes on
    after it.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, workers: Workers, unnamed_handler: BatchHandler, *, answer_seconds: float = 25.0
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._unnamed_handler = unnamed_handler
        self._answer_seconds = answer_seconds
        self._logged_at: dict[str, float] = {}
        self.counts = CallbackCounts()

    def resource(self) -> IResource:
        """Return the resource with the four routes."""
        app = new_app()

        async def generated(request: Request) -> bytes:
            return await self._take(request, Kind.GENERATED, self._handle_generated)

        async def validated(request: Request) -> bytes:
            return await self._take(request, Kind.VALIDATED, self._handle_validated)

        for number, base in enumerate(_BASES):
            app.route(f"{base}/generated", methods=["POST"], endpoint=f"generated{number}")(generated)
            app.route(f"{base}/validated", methods=["POST"], endpoint=f"validated{number}")(validated)
        return app.resource()

    def _handle_generated(self, request: Request) -> Deferred[Receipt]:
        batch = decode_generated(body_of(request))
        handler = self._workers.worker_by_num(batch.node_num).batch_handler
        begun_at = request.begun_at if isinstance(request, JsonRequest) else None
        return handler.handle_generated_batch(batch, via=Via.HTTP, begun_at=begun_at)

    def _handle_validated(self, request: Request) -> Deferred[Receipt]:
        return self._unnamed_handler.handle_validated_batch(decode_validated(body_of(request)), via=Via.HTTP)

    async def _take(self, request: Request, kind: Kind, handle: Callable[[Request], Deferred[Receipt]]) -> bytes:
        if request.getHeader("content-length") is None:
            raise HttpError(411, "send the batch with a Content-Length")
        try:
            storing = shielded(handle(request), f"storing a {kind} batch")
            await storing.addTimeout(self._answer_seconds, self._reactor)
        except DeferredTimeoutError:
            self.counts.late += 1
            self._tell(request, kind, "late", f"not stored within {self._answer_seconds:.0f} s; it goes on")
            return error_answer(request, 503, "not stored in time, try again")
        except CancelledError:
            self.counts.gone += 1
            raise
        except DapiError as error:
            self._count_refusal(error)
            self._tell(request, kind, type(error).__name__, str(error))
            return error_answer(request, status_of(error), str(error))
        if kind is Kind.GENERATED:
            self.counts.generated += 1
        else:
            self.counts.validated += 1
        return answer(request, 200, b"")

    def _count_refusal(self, error: DapiError) -> None:
        match error:
            case MessageError():
                self.counts.bad_message += 1
            case UnknownNodeError():
                self.counts.unknown_node += 1
            case StoreBrokenError():
                self.counts.store_broken += 1
            case _:
                self.counts.store_busy += 1

    def _tell(self, request: Request, kind: Kind, cause: str, refusal: str) -> None:
        """Log a refusal, of each cause one a minute: a node tries again every 5 s, and there may be many."""
        now, logged_at = self._reactor.seconds(), self._logged_at.get(cause)
        if logged_at is not None and now - logged_at < _SECONDS_BETWEEN_LINES:
            return
        self._logged_at[cause] = now
        self.log.warn(
            "{kind} batch from {peer} not taken: {refusal}",
            kind=str(kind),
            peer=request.getClientAddress().host,
            refusal=refusal,
        )
