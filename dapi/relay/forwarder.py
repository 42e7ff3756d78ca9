"""Hands payloads on to the api container, byte for byte, and does what its answers ask for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.logger import Logger

from dapi.http.exchange import NoAnswerError
from dapi.http.raw_client import RawClient
from dapi.messages.printable import printable
from dapi.relay.answers import Judgement, Meaning, judge
from dapi.relay.book import Book
from dapi.relay.facts import Facts, Target
from dapi.relay.knowledge import Knowledge
from dapi.relay.pace import TAIL_SECONDS, try_seconds
from dapi.relay.payload import Headers, Payload, PayloadState, key_of
from dapi.relay.queue import PayloadQueue
from dapi.relay.store import RelayStore
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.loop import LoopService, Wake

_PROBE_SECONDS = 1.0
# One that is not answered may hang for good, where a new connection would not.
_NEXT_PROBE_SECONDS = 3.0
_MAX_PROBES = 4
_CLOSED_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
_MISROUTED_SECONDS = 5.0
_UNKNOWN_NODE_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_FAILURES_OF_A_RESULT = 5
_MAX_GATES = 1024

_LATER_SECONDS = {
    Meaning.AGAIN: _AGAIN_SECONDS,
    Meaning.MISROUTED: _MISROUTED_SECONDS,
    Meaning.UNKNOWN_NODE: _UNKNOWN_NODE_SECONDS,
    Meaning.UNREADABLE: _MISROUTED_SECONDS,
}
_PROBLEMS = {
    Meaning.AGAIN: "the api container refuses callbacks for now",
    Meaning.MISROUTED: "callbacks do not reach the api container's route, though nothing is wrong with them",
    Meaning.UNREADABLE: "the body of a callback cannot be read from dapi's own disk",
    Meaning.UNKNOWN_NODE: "the api container does not know a node that delivers: it was removed, or has a new number",
}


class Forwarder(LoopService):
    """Sends what waits. ``away`` says since when, on the reactor's clock, the container cannot be reached, and why.

    While it is away, one payload a second finds out whether it is back, and another one after 3 s without an answer. A
    window that is closed is tried once in 5 s, once in 1 s where it should be open by the container's own height.
    ``problems`` are what its answers complain of, by kind, with the time of the last one.
    """

    log = Logger()

    def __init__(self, reactor: Any, store: RelayStore, client: RawClient, knowledge: Knowledge, book: Book) -> None:
        super().__init__(reactor)
        self.away: tuple[float, str] | None = None
        self.problems: dict[Meaning, tuple[float, str]] = {}
        self.was_away = False
        self.queue = PayloadQueue()
        self._store = store
        self._client = client
        self._knowledge = knowledge
        self._book = book
        self._wake = Wake(reactor)
        self._probe_at = 0.0
        self._probes: set[Payload] = set()
        self._gates: dict[tuple[int | None, str | None], float] = {}
        self._sending: set[Deferred[None]] = set()
        self._log_limit = OncePerMinute(reactor)
        knowledge.observe(self.look_at_held)
        book.on_again = self.add

    def add(self, payload: Payload) -> None:
        """Have a payload sent that waits."""
        self.queue.put(payload, now=self._reactor.seconds())
        self._wake.ring()

    def look_at_held(self) -> None:
        """Release what need not be held any more."""
        for payload in list(self._book.held.values()):
            if self._why_held(payload) is None:
                self._book.release(payload)

    def held_reason(self, said: Target, headers: Headers, facts: Facts) -> str | None:
        """Say why a callback must not be handed on now, or None."""
        return self._knowledge.held_reason(said, headers, facts, self._book.counted(key_of(said, facts)))

    def _why_held(self, payload: Payload) -> str | None:
        return self.held_reason(payload.said, payload.headers, payload.facts)

    def stopService(self) -> Deferred[None]:
        """Break off what is under way, which is on disk and goes again; fires when nothing is left."""
        ended = super().stopService()
        for sending in list(self._sending):
            sending.cancel()
        return ended.addCallback(lambda _: self._client.close())

    async def loop(self) -> None:
        """Send what is due, as soon as it is."""
        while self.running:
            now = self._reactor.seconds()
            while (payload := self._next(now)) is not None:
                sending = Deferred.fromCoroutine(self._send(payload))
                self._sending.add(sending)
                sending.addBoth(self._sent, sending, payload)
            await self._wake.wait(self._seconds_to_next(now))

    def _seconds_to_next(self, now: float) -> float:
        at = self.queue.next_time()
        if self.away is not None:
            # Until then nothing is tried, whatever is due.
            is_probe_possible = len(self.queue) > 0 and len(self._probes) < _MAX_PROBES
            at = self._probe_at if is_probe_possible else None
        return _LOOK_SECONDS if at is None else min(_LOOK_SECONDS, max(0.01, at - now))

    def _next(self, now: float) -> Payload | None:
        if self.away is not None and (now < self._probe_at or len(self._probes) >= _MAX_PROBES):
            return None
        is_tail = self._is_tail()
        while (payload := self.queue.take(now, is_tail=is_tail)) is not None:
            if self._is_to_be_sent(payload, now):
                if self.away is not None:
                    self._probe_at = now + _NEXT_PROBE_SECONDS
                    self._probes.add(payload)
                return payload
            self.queue.done(payload)
        return None

    def _is_tail(self) -> bool:
        seconds_left = self._knowledge.seconds_to_end()
        return seconds_left is not None and seconds_left < TAIL_SECONDS

    def _is_to_be_sent(self, payload: Payload, now: float) -> bool:
        """Tell whether a payload goes now; if not, it has its place already."""
        if (reason := self._knowledge.late_reason(payload)) is not None:
            self._book.too_late([payload], reason)
            return False
        if (reason := self._why_held(payload)) is not None:
            self._book.hold(payload, reason)
            if payload.key is not None and self._knowledge.is_known(payload):
                # So that the container is asked how many there are, which may release it.
                self._book.ledger(payload.key)
            if self._log_limit.is_due("held"):
                self.log.error("a callback is held and not handed on: {reason}", reason=reason)
            return False
        gate = (payload.facts.height, payload.said.kind)
        if (until := self._gates.get(gate)) is not None:
            if now < until:
                payload.retry_at = until
                self.queue.put(payload, now=now)
                return False
            self._gates[gate] = now + self._closed_seconds(payload)
        return True

    def _closed_seconds(self, payload: Payload) -> float:
        return _PROBE_SECONDS if self._knowledge.is_open(payload) else _CLOSED_SECONDS

    async def _send(self, payload: Payload) -> None:
        payload.tries += 1
        if payload.key is not None:
            self._book.ledger(payload.key).sending(payload.facts.nonces)
        request = Deferred.fromCoroutine(
            self._client.request(b"POST", payload.target, list(payload.headers), self._store.source(payload))
        )
        seconds = try_seconds(payload.size, self._knowledge.seconds_left(payload), payload.tries)
        try:
            answer = await request.addTimeout(seconds, self._reactor)
        except (NoAnswerError, DeferredTimeoutError) as error:
            text = f"no answer within {seconds:.0f} s" if isinstance(error, DeferredTimeoutError) else str(error)
            self._act(payload, Judgement(Meaning.AWAY, text))
        except OSError as error:
            self._act_on_unreadable(payload, str(error.strerror or error))
        else:
            self._act(payload, judge(answer.status, answer.body, is_callback=payload.said.kind is not None))

    def _sent(self, result: Any, sending: Deferred[None], payload: Payload) -> None:
        self._sending.discard(sending)
        self._probes.discard(payload)
        self.queue.done(payload)
        self._wake.ring()
        if hasattr(result, "check") and not result.check(CancelledError):
            if self._log_limit.is_due("broke"):
                self.log.failure("handing a callback on broke", result)
            if payload.state is PayloadState.WAITING:
                payload.retry_at = self._reactor.seconds() + _MISROUTED_SECONDS
                self.queue.put(payload, now=self._reactor.seconds())

    def _act(self, payload: Payload, judged: Judgement) -> None:
        """Do what an answer asks for."""
        now, (meaning, reason, status) = self._reactor.seconds(), judged
        if meaning is Meaning.AWAY:
            self._is_away(payload, reason, now)
            return
        self._is_back()
        gate = (payload.facts.height, payload.said.kind)
        if meaning is Meaning.TAKEN:
            if self._gates.pop(gate, None) is not None:
                self.queue.hurry(now)
            self._book.took(payload, now)
            return
        payload.reason = reason
        is_failed_result = status == 500 and payload.said.kind == "validated"
        payload.failures += is_failed_result
        if meaning is Meaning.NEVER or payload.failures >= _FAILURES_OF_A_RESULT:
            self._book.put_aside(payload, reason)
            if self._log_limit.is_due("set aside"):
                self.log.error(
                    "the api container will never take a callback, which is set aside: {reason}", reason=reason
                )
            return
        if meaning is Meaning.CLOSED:
            if len(self._gates) >= _MAX_GATES:
                self._gates = {gate: until for gate, until in self._gates.items() if until > now}
            self._gates[gate] = payload.retry_at = now + self._closed_seconds(payload)
        else:
            # A result with a wrong key gets 500 for ever; one that the container cannot hand over now gets 30 s.
            factor = 2 ** (payload.failures - 1) if is_failed_result else 1
            payload.retry_at = now + _LATER_SECONDS[meaning] * factor
            where = f", for {printable(payload.target)}" if meaning is Meaning.MISROUTED else ""
            self._complain(meaning, reason + where, now)
        self.queue.put(payload, now=now)

    def _act_on_unreadable(self, payload: Payload, reason: str) -> None:
        now = self._reactor.seconds()
        payload.reason, payload.retry_at = reason, now + _LATER_SECONDS[Meaning.UNREADABLE]
        self._complain(Meaning.UNREADABLE, reason, now)
        self.queue.put(payload, now=now)

    def _is_away(self, payload: Payload, reason: str, now: float) -> None:
        if self.away is None:
            self.away = (now, reason)
            self.was_away = True
            if self._log_limit.is_due("away"):
                self.log.warn("the api container is away, callbacks wait on disk: {reason}", reason=reason)
        self._probe_at = now + _PROBE_SECONDS
        # Behind all others of its lane: it may be the only one that the container does not answer.
        self.queue.put(payload, now=now)

    def _is_back(self) -> None:
        if self.away is not None:
            seconds, self.away = self._reactor.seconds() - self.away[0], None
            if self._log_limit.is_due("back"):
                self.log.info("the api container is back after {seconds:.0f} s", seconds=seconds)

    def _complain(self, meaning: Meaning, reason: str, now: float) -> None:
        self.problems[meaning] = (now, f"{_PROBLEMS[meaning]} ({reason})")
        if self._log_limit.is_due(meaning.name):
            self.log.error("{problem}", problem=self.problems[meaning][1])
