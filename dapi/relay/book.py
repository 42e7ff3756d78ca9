"""All payloads in memory by their state, and what the database is still to be told of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import Logger

from dapi.errors import StoreError
from dapi.messages.sizes import MIB
from dapi.relay.payload import Key, Payload, PayloadState
from dapi.relay.stage_ledger import StageLedger
from dapi.relay.store import RelayStore
from dapi.timing.histogram import Histogram

_MAX_LEDGERS = 32
_REMEMBERED = 20


class Book:
    """Turns payloads from state to state. ``taken`` and ``settled`` are by stage and model, None where unknown.

    A settled body is kept until its stage ends, so that it can be sent again when the container's file turns out to be
    damaged; beyond ``keep_bytes`` the oldest go earlier. ``set_aside`` are the latest of those, with their bodies;
    ``counts`` says how many payloads came to each state, ``forward_seconds`` how long artifacts took to the container.
    """

    log = Logger()

    def __init__(self, store: RelayStore, *, keep_bytes: int = 2048 * MIB) -> None:
        self.taken: dict[Key | None, list[Payload]] = {}
        self.settled: dict[Key | None, deque[Payload]] = {}
        self.held: dict[int, Payload] = {}
        self.held_bytes = 0
        self.set_aside: deque[Payload] = deque(maxlen=_REMEMBERED)
        self.ledgers: dict[Key, StageLedger] = {}
        self.counts: Counter[str] = Counter()
        self.forward_seconds = Histogram()
        self.on_again: Callable[[Payload], object] = lambda payload: None
        self.on_taken: Callable[[Key], object] = lambda key: None
        self._store = store
        self._keep_bytes = keep_bytes
        self._to_record: list[tuple[Payload, PayloadState, str | None]] = []
        self._to_drop: list[Payload] = []

    def ledger(self, key: Key) -> StageLedger:
        """Return the ledger of a stage and model; beside it those of the highest stages are kept, 32 in all."""
        if key not in self.ledgers:
            for old in sorted(self.ledgers)[: 1 - _MAX_LEDGERS]:
                del self.ledgers[old]
            self.ledgers[key] = StageLedger()
        return self.ledgers[key]

    @property
    def unsettled(self) -> int:
        """How many payloads were answered with 200, and are not counted yet."""
        return sum(map(len, self.taken.values()))

    def counted(self, key: Key | None) -> int:
        """Return how many artifacts there are of a stage and model, as far as is known."""
        ledger = self.ledgers.get(key) if key is not None else None
        return max(ledger.handed_on, ledger.count or 0) if ledger is not None else 0

    def restore(self, payload: Payload) -> None:
        """Take a payload that was finished before a restart of dapi; its body goes, unless it may be needed."""
        if payload.state is PayloadState.SET_ASIDE:
            self._show_aside(payload)
        elif payload.state is PayloadState.SETTLED and payload.key is not None:
            ledger = self.ledger(payload.key)
            ledger.sending(payload.facts.nonces)
            ledger.took(payload.facts.nonces, payload.facts.node_num)
            if payload.has_body:
                self.settled.setdefault(payload.key, deque()).append(payload)
        else:
            self._to_drop.append(payload)

    def hold(self, payload: Payload, reason: str) -> None:
        """Keep a payload that must not be handed on."""
        payload.turn(PayloadState.HELD, reason)
        self.held[payload.seq] = payload
        self.held_bytes += payload.size
        self.counts["held"] += 1

    def release(self, payload: Payload) -> None:
        """Have a held payload handed on."""
        self._leave_held(payload)
        payload.turn(PayloadState.WAITING)
        self.on_again(payload)

    def took(self, payload: Payload, now: float) -> None:
        """Record a 200."""
        self.counts["taken"] += 1
        if payload.said.kind != "generated":
            # The container hands a result on at once, and a second one costs it a message.
            self._end(payload, PayloadState.SETTLED, None)
            self._to_drop.append(payload)
            return
        payload.turn(PayloadState.TAKEN)
        if not payload.rank:
            self.forward_seconds.observe(max(0.0, self._store.now() - payload.received_at))
        payload.taken_at = payload.taken_at or now
        self.taken.setdefault(payload.key, []).append(payload)
        if payload.key is not None:
            payload.rank = self.ledger(payload.key).took(payload.facts.nonces, payload.facts.node_num)
            self.on_taken(payload.key)

    def settle(self, payloads: Iterable[Payload]) -> None:
        """Record that payloads are on the container's disk."""
        for payload in payloads:
            self._leave_taken(payload)
            self._end(payload, PayloadState.SETTLED, None)
            self.settled.setdefault(payload.key, deque()).append(payload)

    def again(self, payloads: Iterable[Payload], reason: str, *, is_trial: bool = False) -> None:
        """Have payloads sent again that were taken, or settled.

        With ``is_trial`` they stay not counted since their first 200.
        """
        for payload in list(payloads):
            if payload.state is PayloadState.TAKEN:
                self._leave_taken(payload)
            else:
                self.settled[payload.key].remove(payload)
                self._to_record.append((payload, PayloadState.WAITING, reason))
            payload.turn(PayloadState.WAITING, reason)
            payload.retry_at = 0.0
            payload.taken_at = payload.taken_at if is_trial else 0.0
            self.counts["sent_again"] += 1
            self.on_again(payload)

    def put_aside(self, payload: Payload, reason: str) -> None:
        """Keep a payload that will never be taken, for whoever wants to look at it."""
        self._end(payload, PayloadState.SET_ASIDE, reason)
        self._show_aside(payload)

    def _show_aside(self, payload: Payload) -> None:
        if len(self.set_aside) == _REMEMBERED:
            self._to_drop.append(self.set_aside[0])
        self.set_aside.append(payload)

    def too_late(self, payloads: Iterable[Payload], reason: str) -> None:
        """Record that the window of payloads has ended: their bodies are of no use any more."""
        for payload in list(payloads):
            if payload.state is PayloadState.TAKEN:
                self._leave_taken(payload)
            self._leave_held(payload)
            self._end(payload, PayloadState.LATE, reason)
            self._to_drop.append(payload)

    def end_stages(self, is_over: Callable[[Payload], bool], takes_no_more: Callable[[int], bool]) -> None:
        """Give the room of settled bodies back whose stage is over, and of the oldest ones where all take too much.

        ``takes_no_more`` says of a stage's height that no artifact of it is taken: its nonces are forgotten.
        """
        for (height, model), ledger in self.ledgers.items():
            if (height, model) not in self.taken and takes_no_more(height):
                ledger.close()
        for key, settled in list(self.settled.items()):
            if key is None or (settled and is_over(settled[0])):
                self._to_drop += settled
                del self.settled[key]
        excess = self._store.bytes - sum(payload.size for payload in self._to_drop) - self._keep_bytes
        for settled in self.settled.values():
            while excess > 0 and settled:
                self._to_drop.append(settled.popleft())
                excess -= self._to_drop[-1].size

    async def record(self) -> None:
        """Tell the database and the disk what has happened since the last time; a disk that fails is told later."""
        changes, self._to_record = self._to_record, []
        if changes:
            try:
                await self._store.finish(changes)
            except StoreError as error:
                self._to_record = [*changes, *self._to_record]
                self.log.info(
                    "what became of {count} callbacks is recorded later: {error}", count=len(changes), error=error
                )
                return
        if self._to_drop:
            dropped, self._to_drop = self._to_drop, []
            await self._store.drop_bodies(payload.place for payload in dropped)

    def status(self) -> dict[str, Any]:
        """Return counts since the start, what is held and set aside, and how each stage and model stands."""
        return {
            "counts": dict(self.counts),
            "unsettled": self.unsettled,
            "held": [_shown(payload) for payload in list(self.held.values())[:_REMEMBERED]],
            "held_count": len(self.held),
            "set_aside": [_shown(payload) for payload in self.set_aside],
            "stages": [
                {
                    "height": height,
                    "model": model,
                    "handed_on": ledger.handed_on,
                    "stored": ledger.count,
                    "is_exact": ledger.is_exact,
                }
                for (height, model), ledger in sorted(self.ledgers.items())
            ],
        }

    def _leave_held(self, payload: Payload) -> None:
        if self.held.pop(payload.seq, None) is not None:
            self.held_bytes -= payload.size

    def _leave_taken(self, payload: Payload) -> None:
        self.taken[payload.key].remove(payload)
        if not self.taken[payload.key]:
            del self.taken[payload.key]

    def _end(self, payload: Payload, state: PayloadState, reason: str | None) -> None:
        payload.turn(state, reason)
        self.counts[str(state)] += 1
        self._to_record.append((payload, state, reason))


def _shown(payload: Payload) -> dict[str, Any]:
    return {
        "height": payload.facts.height,
        "model": payload.said.model,
        "kind": payload.said.kind,
        "node_num": payload.facts.node_num,
        "size": payload.size,
        "reason": payload.reason,
    }
