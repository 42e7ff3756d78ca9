"""The relay as one service: what comes is kept, answered, and handed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.database import Database
from dapi.errors import StoreError
from dapi.http.answers import HttpError, error_body, shielded
from dapi.http.exchange import NoAnswerError
from dapi.http.raw_client import RawAnswer, RawClient
from dapi.messages.sizes import MIB
from dapi.relay.api_client import ApiClient
from dapi.relay.bodies import Body
from dapi.relay.book import Book
from dapi.relay.facts import read_target
from dapi.relay.forwarder import Forwarder
from dapi.relay.hearing import Hearing
from dapi.relay.knowledge import Knowledge
from dapi.relay.large import LargeBodies
from dapi.relay.payload import Headers, Payload, PayloadState
from dapi.relay.prefix import PREFIX, PrefixFile
from dapi.relay.reconciliation import Reconciliation
from dapi.relay.rows import NewRow
from dapi.relay.store import MAX_BODY_BYTES, RelayStore
from dapi.timing.histogram import Histogram
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.retry import RetryDelay, retry

# A node's try has 10 s in all.
_STORE_SECONDS = 4.0
_PASS_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_MAX_IDLE = 16
_MAX_PENDING_BYTES = 256 * MIB
_MAX_UNSETTLED = 100_000
# Beyond that, what would be held is refused: it is not worth the disk.
_MAX_HELD = 10_000
_MAX_HELD_BYTES = 1024 * MIB
_UNPREFIXED = b"/v2/"


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the network's own api container is: its callbacks and metrics, its public port, its admin port."""

    callback_url: str
    public_url: str
    admin_url: str
    ca_file: str | None = None
    holds_suspects: bool = True
    look_seconds: float = 1.0
    settled_seconds: float = 15.0


def _api_client(reactor: Any, settings: RelaySettings) -> ApiClient:
    return ApiClient(
        reactor,
        callback_url=settings.callback_url,
        public_url=settings.public_url,
        admin_url=settings.admin_url,
        ca_file=settings.ca_file,
    )


def _is_done(work: Deferred[None]) -> Deferred[bool]:
    """Return what fires when ``work`` has ended: with True where it has not failed, for it passes its result on."""
    done: Deferred[bool] = Deferred()

    def tell(result: Any) -> Any:
        done.callback(not isinstance(result, Failure))
        return result

    work.addBoth(tell)
    return done


class _TooManyHeldError(Exception):
    """What came would be held, and too much is held already."""


class Relay(MultiService):
    """Takes callbacks below a secret prefix of the callback port, and hands them on without it.

    The bodies are in ``folder``, the prefix is in the file of that name with ``.prefix``. ``take`` fires with None when
    the callback is on disk: it is to be answered with an empty 200. When the disk fails, it fires with the container's
    own answer.
    """

    log = Logger()
    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self,
        reactor: Any,
        database: Database,
        folder: str,
        settings: RelaySettings,
        *,
        retry_delay: RetryDelay,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._settings = settings
        self._secret = PrefixFile(f"{folder}.prefix")
        self._retry_delay = retry_delay
        self._passed_on = 0
        self._passing: tuple[float, str] | None = None
        self._refused = 0
        self._pending_bytes = 0
        self._large = LargeBodies()
        self._log_limit = OncePerMinute(reactor)
        self._loading: Deferred[None] = succeed(None)
        self._keeping: set[Deferred[None]] = set()
        self._unloaded: str | None = None
        self.is_loaded = False
        self.answer_seconds = Histogram()
        self._client = self._raw_client(max_idle=_MAX_IDLE)
        self._pass_client = self._raw_client(max_idle=0)
        self._api = _api_client(reactor, settings)
        self.store = RelayStore(reactor, database, folder)
        self.knowledge = Knowledge(reactor, holds_suspects=settings.holds_suspects)
        self.hearing = Hearing(reactor, self.knowledge)
        self.book = Book(self.store)
        self.forwarder = Forwarder(reactor, self.store, self._client, self.knowledge, self.book)
        self.reconciliation = Reconciliation(
            reactor,
            self._api,
            self.knowledge,
            self.book,
            self.forwarder,
            self.store,
            look_seconds=settings.look_seconds,
            settled_seconds=settings.settled_seconds,
        )
        self.store.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _raw_client(self, *, max_idle: int) -> RawClient:
        settings = self._settings
        return RawClient(
            self._reactor,
            settings.callback_url,
            connect_timeout_seconds=_CONNECT_SECONDS,
            ca_file=settings.ca_file,
            max_idle=max_idle,
        )

    @property
    def prefix(self) -> str:
        """The path that callbacks have to begin with; a secret."""
        return self._secret.prefix

    def startService(self) -> None:
        """Open the store; what is kept from before is handed on as soon as the database has told it.

        Raises StartError.
        """
        self._secret.open()
        super().startService()  # type: ignore[no-untyped-call]
        self._loading = Deferred.fromCoroutine(self._load())
        self._loading.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stopService(self) -> Deferred[None]:
        """Hand nothing on any more; fires when nothing is left of it."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._loading.cancel()
        await self._loading
        for loop in (self.forwarder, self.reconciliation):
            if loop.running:
                await loop.stopService()
        await self._api.close()
        while self._keeping:
            await next(iter(self._keeping))
        # Last, for something may have been passed on meanwhile.
        await self._pass_client.close()
        # So that the next start does not send again what is settled.
        await self.book.record()
        await super().stopService()  # type: ignore[no-untyped-call]

    async def _load(self) -> None:
        payloads: list[Payload] = []
        try:
            payloads = await retry(
                self._reactor, self.store.load, errors=StoreError, delay=self._retry_delay, on_error=self._not_loaded
            )
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - what comes now is handed on all the same
            self.log.failure("what the relay keeps from before is not handed on")
            self._unloaded = f"{type(error).__name__}: {error}"
        else:
            self._unloaded = None
            self.is_loaded = True
        for payload in payloads:
            if payload.state is PayloadState.WAITING:
                self.forwarder.add(payload)
            else:
                self.book.restore(payload)
        self.knowledge.begin()
        self.forwarder.startService()
        self.reconciliation.startService()

    def _not_loaded(self, error: Exception) -> None:
        self._unloaded = str(error)
        if self._log_limit.is_due("load"):
            self.log.warn("what the relay keeps from before waits: {error}", error=str(error))

    # What comes.

    def takes(self, target: bytes) -> bool:
        """Tell whether a request target is the relay's."""
        return target.startswith((PREFIX.encode(), _UNPREFIXED))

    def admit(self, target: bytes) -> None:
        """Refuse what lacks the right prefix, before its body is read; raises HttpError."""
        if not self._secret.is_before(target):
            self._refused += 1
            if self._log_limit.is_due("prefix"):
                self.log.warn("a callback without the right prefix was refused ({count} so far)", count=self._refused)
            raise HttpError(403, "the path has no right prefix: the api container is told it as poc_callback_url")
        if any(not 0x21 <= byte <= 0x7E for byte in target):
            raise HttpError(400, "the path is not ASCII")
        if not self.running or self._pending_bytes >= _MAX_PENDING_BYTES:
            raise HttpError(503, "too many bodies at once, try again")

    def check_room(self, length: int, address: str) -> None:
        """Refuse an admitted request whose body finds no room; raises HttpError."""
        self._large.check(length, address)

    def open_body(
        self, target: bytes, length: int, address: str, *, pause: Callable[[], object], resume: Callable[[], object]
    ) -> Body:
        """Return where the body of an admitted request goes."""
        body = self.store.open_body(target[len(self.prefix) :], length, pause=pause, resume=resume)
        self._large.begin(body, length, address)
        return body

    def lose(self, body: Body) -> None:
        """Forget a body whose request was not finished."""
        self._large.end(body)
        body.discard()

    async def take(self, method: bytes, headers: Headers, body: Body, peer: str) -> RawAnswer | None:
        """Keep a whole request, or hand it on; see the class. A cancel leaves what has begun as it is."""
        self._large.end(body)
        is_full = len(self.forwarder.queue) + self.book.unsettled > _MAX_UNSETTLED
        if is_full:
            self._log_passing(f"more than {_MAX_UNSETTLED} wait already")
        if method != b"POST" or is_full:
            return await self._pass_on_and_forget(method, headers, body)
        began = self._reactor.seconds()
        work = self._keep(headers, body, peer)
        is_kept = _is_done(work)

        def discard_unless_kept() -> None:
            is_kept.addCallback(lambda kept: None if kept else body.discard())

        try:
            await shielded(work, "keeping a callback").addTimeout(_STORE_SECONDS, self._reactor)
        except StoreError as error:
            self._log_passing(str(error))
            return await self._pass_on_and_forget(method, headers, body)
        except DeferredTimeoutError:
            # It may be kept yet, and is handed on twice then, which does no harm.
            self._log_passing("the disk is too slow")
            try:
                return await self._pass_on(method, headers, body)
            finally:
                discard_unless_kept()
        except CancelledError:
            discard_unless_kept()
            raise
        except _TooManyHeldError as error:
            body.discard()
            return RawAnswer(503, b"application/json", error_body(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the node its work
            if self._log_limit.is_due("defect"):
                self.log.failure("keeping a callback broke, which it never should")
            self._log_passing(f"{type(error).__name__}: {error}")
            return await self._pass_on_and_forget(method, headers, body)
        self.answer_seconds.observe(self._reactor.seconds() - began)
        return None

    def _log_passing(self, reason: str) -> None:
        self._passing = (self._reactor.seconds(), reason)
        if self._log_limit.is_due("pass"):
            self.log.error("callbacks are handed on without being kept: {reason}", reason=reason)

    def _keep(self, headers: Headers, body: Body, peer: str) -> Deferred[None]:
        async def keep() -> None:
            said = read_target(body.target)
            facts = await self.store.read(body)
            self.hearing.hear(facts)
            reason = self.forwarder.held_reason(said, headers, facts)
            self._refuse_what_is_too_much(reason)
            row = NewRow(body, headers, self.store.now(), peer, said, facts)
            # What is held may stay for long.
            payload = await self.store.keep(row, is_alone=reason is not None)
            self.book.counts["doubled" if payload is None else "kept"] += 1
            if payload is not None:
                self.forwarder.add(payload)

        size = body.length if body.in_memory else 0
        self._pending_bytes += size
        keeping = Deferred.fromCoroutine(keep())
        ended: Deferred[None] = Deferred()
        self._keeping.add(ended)

        def end(result: Any) -> Any:
            self._pending_bytes -= size
            self._keeping.discard(ended)
            ended.callback(None)
            return result

        return keeping.addBoth(end)

    def _refuse_what_is_too_much(self, reason: str | None) -> None:
        book = self.book
        if reason is not None and (len(book.held) >= _MAX_HELD or book.held_bytes >= _MAX_HELD_BYTES):
            book.counts["refused_as_too_much"] += 1
            raise _TooManyHeldError(f"too many callbacks are held already: {reason}")

    async def _pass_on_and_forget(self, method: bytes, headers: Headers, body: Body) -> RawAnswer:
        try:
            return await self._pass_on(method, headers, body)
        finally:
            body.discard()

    async def _pass_on(self, method: bytes, headers: Headers, body: Body) -> RawAnswer:
        """Hand a request on there and then, and return the answer; never a redirect."""
        self._passed_on += 1
        try:
            if method == b"POST" and (reason := await self._why_held(headers, body)) is not None:
                return RawAnswer(503, b"application/json", error_body(f"held: {reason}"))
            request = Deferred.fromCoroutine(self._pass_client.request(method, body.target, list(headers), body))
            answer = await request.addTimeout(_PASS_SECONDS, self._reactor)
        except (NoAnswerError, DeferredTimeoutError, OSError) as error:
            return RawAnswer(502, b"application/json", error_body(f"the api container gave no answer: {error}"))
        if 300 <= answer.status < 400:
            return RawAnswer(502, b"application/json", error_body("the api container answered with a redirect"))
        return answer

    async def _why_held(self, headers: Headers, body: Body) -> str | None:
        facts = await self.store.look_through(body)
        return self.forwarder.held_reason(read_target(body.target), headers, facts)

    def handed_on(self, height: int, model: str) -> dict[str, int] | None:
        """Return how many artifacts of a stage and model were handed on, by node id; None: nothing of it came."""
        ledger = self.book.ledgers.get((height, model))
        if ledger is None:
            return None
        names = {node.node_num: node.node_id for node in self.knowledge.nodes or ()}
        return {
            names.get(num or 0, f"node number {num}"): count for num, count in sorted(ledger.by_node.items(), key=str)
        }

    def status(self) -> dict[str, Any]:
        """Return what ``GET status`` shows of the relay."""
        knowledge, forwarder, reconciliation = self.knowledge, self.forwarder, self.reconciliation
        epochs, now = knowledge.epochs, self._reactor.seconds()
        away = forwarder.away
        return {
            "is_loaded": self.is_loaded,
            "waiting": len(forwarder.queue) + forwarder.queue.under_way,
            "bytes": self.store.bytes,
            "passed_on": self._passed_on,
            "passing": self._passing[1] if self._passing is not None and now - self._passing[0] < 60 else None,
            "refused": self._refused,
            "silent_nodes": self.hearing.silent(),
            "away": None if away is None else {"seconds": round(now - away[0], 1), "reason": away[1]},
            "api_restarts": knowledge.restarts,
            "height": epochs.block_height if epochs is not None else None,
            "stage": knowledge.newest or None,
            "problems": {
                "questions": dict(knowledge.problems),
                "answers": {meaning.name: text for meaning, (at, text) in forwarder.problems.items() if now - at < 60},
                "fallen": list(reconciliation.fallen.values()),
                "stalled": list(reconciliation.stalled.values()),
                "unloaded": self._unloaded,
                "loops": [problem for loop in (forwarder, reconciliation) if (problem := loop.loop_problem)],
            },
            **self.book.status(),
        }
