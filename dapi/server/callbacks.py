# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The callback routes: ML nodes POST the batches here that their WebSocket did not deliver.

A node POSTs a bare batch without a time limit of its own, drops the batch on any status below 400, and else tries again
without end (docs/protocol/node.md, 'How a node delivers'). So each request is answered in time, and 200 (with an empty
body) only when the batch is on disk. Whose a batch is, and who may deliver at all, says the CallbackDoor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request

from dapi.errors import DapiError, ForbiddenError, MessageError, QuotaError, StoreBrokenError, UnknownNodeError
from dapi.http.answers import HttpError, answer, body_of, error_answer, new_app, shielded, status_of
from dapi.http.known_routes import KnownRoutes
from dapi.http.request import JsonRequest
from dapi.http.routes import Route, add_routes
from dapi.messages import Kind, ProofBatch, Receipt, ValidatedBatch, Via, decode_generated, decode_validated
from dapi.messages.printable import printable
from dapi.messages.wire import decode_large_generated, decode_large_validated
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LARGE_BYTES, LargeBatches
from dapi.server.callback_door import BASES, CallbackDoor
from dapi.timing.fair_share import Account, FairShare
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.pool_thread import PoolThread


class CallbackCounts(msgspec.Struct):
    """How many batches came by HTTP and were stored, by kind, and how many were not answered with 200, by reason.

    ``late``: storing took too long. ``gone``: the client went away first. Both may be on disk by now. ``forbidden``
    names a node that has to prove itself, and came without a token; CallbackDoor counts those that came to its path.
    """

    generated: int = 0
    validated: int = 0
    bad_message: int = 0
    forbidden: int = 0
    unknown_node: int = 0
    over_quota: int = 0
    store_busy: int = 0
    store_broken: int = 0
    late: int = 0
    gone: int = 0


class Callbacks:
    """Stores the batches that ML nodes POST to a base with or without a token, as far as ``door`` allows.

    ``batch_handler`` returns the handler of the node with a number; it raises UnknownNodeError when there is no such
    node, and NotReadyError while the nodes are not loaded. ``unnamed_handler`` gets the validated batches that come
    without a token: nothing in them names the node that sends. Its ``ack_times`` are those of all callbacks.
    ``large_batches`` takes large bodies, and may be others', too; what they take is charged to their senders' accounts
    of ``share``.
    """

    log = Logger()
    answer_seconds = 25.0
    """How long a node waits for the disk: less than the deadline of the whole request. The storing goes on after it."""

    def __init__(
        self,
        reactor: IReactorTime,
        door: CallbackDoor,
        batch_handler: Callable[[int], BatchHandler],
        unnamed_handler: BatchHandler,
        share: FairShare | None = None,
        large_batches: LargeBatches | None = None,
    ) -> None:
        self._share = share
        self._large_batches = large_batches or LargeBatches(reactor)
        self._reactor = reactor
        self._door = door
        self._batch_handler = batch_handler
        self._unnamed_handler = unnamed_handler
        self._log_limit = OncePerMinute(reactor)
        self.counts = CallbackCounts()

    def resource(self, others: Iterable[Route] = ()) -> IResource:
        """Return the resource with the routes, each below a token and without one, and with those of other parts."""
        app = new_app()

        def generated(request: Request, token: str | None = None) -> Deferred[bytes]:
            return self._answer(request, token, Kind.GENERATED, self._store_generated)

        def validated(request: Request, token: str | None = None) -> Deferred[bytes]:
            return self._answer(request, token, Kind.VALIDATED, self._store_validated)

        for base in (*BASES, *(f"{base}/<token>" for base in BASES)):
            app.route(f"{base}/generated", methods=["POST"], endpoint=f"{base}/generated")(generated)
            app.route(f"{base}/validated", methods=["POST"], endpoint=f"{base}/validated")(validated)
        own_endpoints = list(app.endpoints)
        add_routes(app, others)
        return KnownRoutes(app, own_endpoints)

    def _store_generated(self, request: Request, caller: int | None) -> Deferred[Receipt]:
        begun_at = request.begun_at if isinstance(request, JsonRequest) else None

        def handle(batch: ProofBatch, size: int, thread: PoolThread | None = None) -> Deferred[Receipt]:
            if caller is None:
                self._door.check_unproven(batch.node_num)
            handler = self._batch_handler(batch.node_num if caller is None else caller)
            return handler.handle_generated_batch(batch, Via.HTTP, begun_at, size=size, thread=thread)

        body = body_of(request)
        if len(body) >= LARGE_BYTES:
            return self._large_batches.take(body, decode_large_generated, handle, self._account(request, caller))
        return shielded(handle(decode_generated(body), len(body)), "storing a generated batch")

    def _store_validated(self, request: Request, caller: int | None) -> Deferred[Receipt]:
        handler = self._unnamed_handler if caller is None else self._batch_handler(caller)

        def handle(batch: ValidatedBatch, size: int, thread: PoolThread | None = None) -> Deferred[Receipt]:
            return handler.handle_validated_batch(batch, Via.HTTP, size=size, thread=thread)

        body = body_of(request)
        if len(body) >= LARGE_BYTES:
            return self._large_batches.take(body, decode_large_validated, handle, self._account(request, caller))
        return shielded(handle(decode_validated(body), len(body)), "storing a validated batch")

    def _account(self, request: Request, caller: int | None) -> Account | None:
        if self._share is None:
            return None
        if caller is None:
            return self._share.of_stranger(request.getClientAddress().host)
        return self._share.of_node(caller)

    def _answer(
        self, request: Request, token: str | None, kind: Kind, store: Callable[[Request, int | None], Deferred[Receipt]]
    ) -> Deferred[bytes]:
        if request.getHeader(b"content-length") is None:
            raise HttpError(411, "send the batch with a Content-Length")
        came_at = self._reactor.seconds()
        try:
            storing = store(request, self._door.caller(token))
        except DapiError as error:
            storing = fail(error)
        waiting = storing.addTimeout(self.answer_seconds, self._reactor)
        # A coroutine would do the same, at five times the cost.
        return waiting.addCallbacks(self._stored, self._not_stored, (request, kind, came_at), {}, (request, kind))

    def _stored(self, _receipt: Receipt, request: Request, kind: Kind, came_at: float) -> bytes:
        if kind is Kind.GENERATED:
            self.counts.generated += 1
        else:
            self.counts.validated += 1
        self._unnamed_handler.ack_times.by_http.observe(self._reactor.seconds() - came_at)
        return answer(request, 200, b"")

    def _not_stored(self, failure: Failure, request: Request, kind: Kind) -> bytes | Failure:
        error = failure.value
        if isinstance(error, DeferredTimeoutError):
            self.counts.late += 1
            self._log_refusal(request, kind, "late", f"not stored within {self.answer_seconds:.0f} s; it goes on")
            return error_answer(request, 503, "not stored in time, try again")
        if isinstance(error, CancelledError):
            self.counts.gone += 1
        elif isinstance(error, DapiError):
            self._count_refusal(error)
            self._log_refusal(request, kind, type(error).__name__, str(error))
            return error_answer(request, status_of(error), str(error))
        return failure

    def _count_refusal(self, error: DapiError) -> None:
        match error:
            case MessageError():
                self.counts.bad_message += 1
            case ForbiddenError():
                self.counts.forbidden += 1
            case UnknownNodeError():
                self.counts.unknown_node += 1
            case QuotaError():
                self.counts.over_quota += 1
            case StoreBrokenError():
                self.counts.store_broken += 1
            case _:
                self.counts.store_busy += 1

    def _log_refusal(self, request: Request, kind: Kind, limited_by: str, reason: str) -> None:
        # A node tries again every 5 s, and there may be many nodes.
        if self._log_limit.is_due(limited_by):
            self.log.warn(
                "{kind} batch from {peer} not taken: {reason}",
                kind=str(kind),
                peer=request.getClientAddress().host,
                # An error may quote the node.
                reason=printable(reason),
            )
