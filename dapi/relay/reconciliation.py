"""Asks the api container each second, and has what it lost sent again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.errors import StoreError
from dapi.relay.api_client import ApiClient, ApiUnavailableError
from dapi.relay.book import Book
from dapi.relay.forwarder import Forwarder
from dapi.relay.knowledge import Knowledge
from dapi.relay.payload import Key, Payload
from dapi.relay.stage_ledger import Mark, StageLedger
from dapi.relay.store import RelayStore
from dapi.timing.loop import LoopService
from dapi.timing.together import together

_LOOK_SECONDS = 1.0
_BETWEEN_LOOKS_SECONDS = 0.2
_NODES_EACH = 5
SETTLED_SECONDS = 15.0
_DOUBLINGS = 2
# As a part of the time after which what is not counted counts as lost: more than a flush, and a look.
_TRIAL = 8.0 / 15.0
_KEPT_SECONDS = 3600.0


class Reconciliation(LoopService):
    """``fallen`` are the stages and models whose count fell: their file is damaged. ``stalled`` are those that lost."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        client: ApiClient,
        knowledge: Knowledge,
        book: Book,
        forwarder: Forwarder,
        store: RelayStore,
        *,
        look_seconds: float = _LOOK_SECONDS,
        settled_seconds: float = SETTLED_SECONDS,
    ) -> None:
        super().__init__(reactor)
        self.fallen: dict[Key, str] = {}
        self.stalled: dict[Key, str] = {}
        self._client = client
        self._knowledge = knowledge
        self._book = book
        self._forwarder = forwarder
        self._store = store
        self._look_seconds = look_seconds
        self._settled_seconds = settled_seconds
        self._trial_seconds = settled_seconds * _TRIAL
        self._turns = 0
        self._again: dict[Key | None, int] = {}
        self._missing_since: dict[Key, float] = {}
        self._fell_at: dict[Key, float] = {}
        self._newest = 0
        # Of which there was a 200 since it was looked at last, and those that are being looked at.
        self._unseen: set[Key] = set()
        self._looking: dict[Key, Deferred[None]] = {}
        book.on_taken = self._look_at_once

    async def loop(self) -> None:
        """Look again and again."""
        while self.running:
            await self._turn()
            await deferLater(self._reactor, self._look_seconds)

    def stopService(self) -> Deferred[None]:
        """End the loop, and what was asked between its turns; fires with None when nothing of it is left."""
        stopping = super().stopService()
        for looking in list(self._looking.values()):
            looking.cancel()
        return stopping

    async def _turn(self) -> None:
        asked_at = self._reactor.seconds()
        marks = {key: ledger.mark() for key, ledger in self._book.ledgers.items() if self._is_asked_of(key)}
        counts: dict[Key, int | None] = {}
        questions: list[Callable[[], Coroutine[Any, Any, None]]] = [self._ask_epochs]
        questions += [partial(self._ask_count, key, counts) for key in marks]
        if self._turns % _NODES_EACH == 0:
            questions.append(self._ask_nodes)
        await together(questions)
        self._turns += 1
        # Last, so that no count is taken for one of the container that had what was handed on before the question: one
        # that started meanwhile counts what it got since, which may be as much.
        if not await self._may_be_another():
            for key, count in counts.items():
                self._read_count(key, marks[key], count)
        self._forwarder.look_at_held()
        self._look_at_time(asked_at)
        await self._end_stages()
        await self._book.record()

    def _is_asked_of(self, key: Key) -> bool:
        return bool(self._book.taken.get(key)) or self._knowledge.newest == key[0]

    async def _ask(self, what: str, question: Any) -> Any:
        """Return the answer, None when there is none; the problem is kept until there is one."""
        try:
            answer = await question
        except ApiUnavailableError as error:
            self._knowledge.problems[what] = str(error)
            return None
        self._knowledge.problems.pop(what, None)
        return answer

    async def _ask_epochs(self) -> None:
        if (epochs := await self._ask("epochs", self._client.epochs())) is not None:
            self._knowledge.learn_epochs(epochs)

    async def _ask_nodes(self) -> None:
        if (nodes := await self._ask("nodes", self._client.nodes())) is not None:
            self._knowledge.learn_nodes(nodes)

    async def _may_be_another(self) -> bool:
        """Tell whether the container may have started anew since the last turn; send again what it had in memory."""
        started_at = await self._ask("metrics", self._client.start_time())
        is_anew = started_at is not None and self._knowledge.learn_start_time(started_at)
        # Without metrics, an interruption may have been a new start.
        may_be_anew = started_at is None and self._forwarder.was_away
        if self._forwarder.away is None:
            self._forwarder.was_away = False
            is_anew = is_anew or may_be_anew
        if is_anew:
            for ledger in self._book.ledgers.values():
                ledger.started_anew()
            self._book.again(
                [each for taken in self._book.taken.values() for each in taken], "the container started anew"
            )
        return is_anew or may_be_anew

    async def _ask_count(self, key: Key, counts: dict[Key, int | None]) -> None:
        try:
            counts[key] = await self._client.count(*key)
        except ApiUnavailableError as error:
            self._knowledge.problems["state"] = str(error)
            return
        self._knowledge.problems.pop("state", None)

    def _look_at_once(self, key: Key) -> None:
        """Ask how many artifacts are counted right after a 200, and 0.2 s later if there were others meanwhile."""
        self._unseen.add(key)
        if self.running and key not in self._looking:
            looking = self._looking[key] = Deferred.fromCoroutine(self._look(key))
            looking.addErrback(lambda failure: failure.trap(CancelledError) and None)
            looking.addErrback(lambda failure: self.log.failure("looking at a count broke", failure))
            looking.addCallback(lambda _: self._looked(key))

    def _looked(self, key: Key) -> None:
        del self._looking[key]

    async def _look(self, key: Key) -> None:
        while key in self._unseen:
            self._unseen.discard(key)
            ledger = self._book.ledger(key)
            mark = ledger.mark()
            # The next turn asks again, and tells what is wrong.
            with contextlib.suppress(ApiUnavailableError):
                ledger.look(mark, await self._client.count(*key))
            await deferLater(self._reactor, _BETWEEN_LOOKS_SECONDS)

    def _read_count(self, key: Key, mark: Mark, count: int | None) -> None:
        ledger = self._book.ledgers.get(key)
        if ledger is None:
            return
        reading = ledger.read(mark, count)
        if reading.has_fallen:
            self._has_fallen(key, count)
            return
        taken = self._book.taken.get(key, ())
        lost = [payload for payload in taken if payload.rank <= reading.lost_rank]
        if lost:
            self._book.again(lost, "the container has written without it")
        settled = [payload for payload in taken if payload.rank <= reading.settled_rank]
        if settled:
            self._book.settle(settled)
            self._again.pop(key, None)
            self.stalled.pop(key, None)

    def _has_fallen(self, key: Key, count: int | None) -> None:
        height, model = key
        self.fallen[key] = f"the api container counts {count} artifacts of stage {height}, fewer than before"
        now = self._reactor.seconds()
        if now - self._fell_at.get(key, -math.inf) < self._settled_seconds:
            # One that falls and rises again and again would have everything sent again each time.
            return
        self._fell_at[key] = now
        text = "{problem}: its file is damaged; the whole stage of {model} is sent again"
        self.log.critical(text, problem=self.fallen[key], model=model)
        everything = [*self._book.taken.get(key, ()), *self._book.settled.get(key, ())]
        self._book.again(everything, "the container's file was damaged")

    def _look_at_time(self, asked_at: float) -> None:
        """Settle by time what cannot be counted, and send again what should have been counted by now."""
        for key, taken in list(self._book.taken.items()):
            ledger = self._book.ledgers.get(key) if key is not None else None
            patience = self._settled_seconds * 2 ** min(self._again.get(key, 0), _DOUBLINGS)
            overdue = [payload for payload in taken if asked_at - payload.taken_at >= patience]
            if not overdue:
                if ledger is not None and ledger.is_exact and asked_at - taken[0].taken_at >= self._trial_seconds:
                    # If the container keeps this one, it keeps again what comes, and shows that it lost the others.
                    self._book.again(taken[:1], "tried once more, for it is not counted yet", is_trial=True)
                continue
            if reason := self._knowledge.late_reason(overdue[0]):
                self._book.too_late(overdue, f"taken, and not counted when {reason}")
            elif key is None or ledger is None or not ledger.is_exact or self._is_uncounted_for_long(key):
                self._book.settle(overdue)
            else:
                self._again[key] = self._again.get(key, 0) + 1
                if self._again[key] > 1:
                    # Sending these once more did not help: what is missing was taken for settled.
                    overdue += self._book.settled.get(key, ())
                self._has_lost(key, overdue, ledger.missing)
        for key, ledger in self._book.ledgers.items():
            self._look_for_missing(key, ledger, asked_at)

    def _look_for_missing(self, key: Key, ledger: StageLedger, asked_at: float) -> None:
        """Send a whole stage again of which something is missing for long, though all of it was taken for settled.

        What the container loses in silence, while more comes, may be made up for by what comes: the count alone does
        not show it before all is quiet.
        """
        settled = self._book.settled.get(key)
        is_missing = bool(settled) and key not in self._book.taken and ledger.is_exact and ledger.missing > 0
        if not settled or not is_missing or self._knowledge.late_reason(settled[0]) is not None:
            self._missing_since.pop(key, None)
        elif asked_at - self._missing_since.setdefault(key, asked_at) >= self._settled_seconds:
            del self._missing_since[key]
            self._has_lost(key, list(settled), ledger.missing)

    def _is_uncounted_for_long(self, key: Key) -> bool:
        """Tell whether the count could not be asked for, so that sending everything again and again helps nobody."""
        return "state" in self._knowledge.problems and self._again.get(key, 0) > 0

    def _has_lost(self, key: Key, overdue: list[Payload], missing: int) -> None:
        height, model = key
        self.stalled[key] = (
            f"{missing} artifacts of stage {height} were answered with 200 and are not on the api container's disk "
            f"after {self._settled_seconds:.0f} s"
        )
        self.log.error("{problem}: they are sent again ({model})", problem=self.stalled[key], model=model)
        self._book.again(overdue, "not counted in time")

    async def _end_stages(self) -> None:
        knowledge = self._knowledge
        self._book.end_stages(
            lambda payload: knowledge.late_reason(payload) is not None, takes_no_more=knowledge.takes_no_more
        )
        waiting = [*self._book.held.values(), *self._forwarder.queue]
        late = [
            (payload, reason) for payload in waiting if (reason := self._knowledge.late_reason(payload)) is not None
        ]
        if late:
            self._forwarder.queue.remove({payload for payload, _ in late})
            for payload, reason in late:
                self._book.too_late([payload], reason)
        if self._knowledge.newest > self._newest:
            self._newest = self._knowledge.newest
            await self._forget_before(self._knowledge.oldest_open)

    async def _forget_before(self, height: int) -> None:
        for each in (self.fallen, self.stalled, self._missing_since, self._fell_at):
            for key in [key for key in each if key[0] < height]:
                del each[key]
        self._again = {key: times for key, times in self._again.items() if key is not None and key[0] >= height}
        try:
            await self._store.forget_before(height, self._store.now() - _KEPT_SECONDS)
        except StoreError as error:
            self.log.info("what is known of older stages stays for now: {error}", error=str(error))
