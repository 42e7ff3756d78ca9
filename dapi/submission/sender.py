"""Chooses messages, signs them, puts them in flight, and offers their transactions to the mempools."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.chain.transactions import TimestampSource
from dapi.errors import ChainRefusedError, ChainStaleError, ChainUnavailableError, MempoolFullError
from dapi.messages import Kind
from dapi.messages.sizes import MIB
from dapi.phases.poc_version import PocVersion
from dapi.submission.begin import Begun, Signer
from dapi.submission.choice import Room
from dapi.submission.decisions import Answer, Decisions
from dapi.submission.outcomes import TOO_LARGE
from dapi.submission.pace import max_size
from dapi.submission.rows import TransactionInFlight
from dapi.submission.settings import SubmitterSettings
from dapi.submission.state import SendingState
from dapi.submission.submissions import Submissions
from dapi.timing.together import to_the_end

# Each has the bytes of a transaction in memory, three times over, and a connection.
OFFERS_AT_ONCE = 8
# What a round begins is in memory until it is offered. While one is offered, the next one is chosen.
_ROUNDS_AT_ONCE = 2
_TRANSACTIONS_A_ROUND, _BYTES_A_ROUND = 16, 4 * MIB
# To put a larger transaction into a request takes a millisecond or two of the reactor's thread.
_LARGE_BYTES = MIB // 16
# What a mempool has is offered again after a time that doubles so often.
_DOUBLINGS = 3

_NO_TIMESTAMP = "no timestamp is left: the chain's time is behind our last transaction's"
_NO_ROOM = "no mempool had room for it"


class Sender:
    """Sends stored messages, as many as Pace allows and no kind that Problems holds. Raises StoreError, ChainError."""

    def __init__(
        self,
        reactor: Any,
        submissions: Submissions,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        state: SendingState,
        decisions: Decisions,
        *,
        poc_version: PocVersion,
        settings: SubmitterSettings,
        timestamps: TimestampSource,
    ) -> None:
        self._reactor = reactor
        self._submissions = submissions
        self._rpc = rpc
        self._watcher = watcher
        self._settings = settings
        self._timestamps = timestamps
        self._signing, self._pace = state.signing, state.pace
        self._problems, self._in_flight = state.problems, state.in_flight
        self._decisions = decisions
        self._poc_version = poc_version
        self._choosing = DeferredLock()
        self._turn = DeferredLock()
        self._has_more = False
        # The latest block, and the time, up to which the mempools are taken for full.
        self._full_until = (0, float("-inf"))

    async def send(self) -> None:
        """Send what there is room for: all of the open kinds, and of each held kind one message a block."""
        if self._is_full() or not self._may_send:
            return
        if self._signing.signer is None:
            await self._signing.refresh()
        self._has_more = True
        # To its end each: what is put in flight on disk has to be known here, too.
        await to_the_end(self._send_while_there_is_room for _ in range(_ROUNDS_AT_ONCE))
        for kind in self._problems.kinds_to_probe(self._height):
            if self._may_send and not self._in_flight.has_kind(kind):
                await self._send_probe(kind)

    @property
    def _height(self) -> int:
        return self._watcher.head.height if self._watcher.head is not None else 0

    @property
    def _may_send(self) -> bool:
        return self._watcher.head is not None and self._watcher.problem is None and self._poc_version.is_v1

    def _is_full(self) -> bool:
        height, time = self._full_until
        return self._height <= height and self._reactor.seconds() < time

    async def _send_while_there_is_room(self) -> None:
        while True:
            # One after the other: no message is chosen twice. While one round is chosen, another one is offered.
            async with self._choosing:
                is_allowed = self._pace.has_room(len(self._in_flight), self._in_flight.size) and not self._is_full()
                if not (self._has_more and is_allowed):
                    return
                begun = await self._begin(self._problems.open_kinds(), _TRANSACTIONS_A_ROUND, self._pace.max_messages)
                self._has_more = bool(begun)
            await self._offer_all(begun)

    async def _send_probe(self, kind: Kind) -> None:
        async with self._choosing:
            begun = await self._begin(frozenset({kind}), 1, 1)
        if begun:
            self._problems.probed(kind, self._height)
            await self._offer_all(begun)

    async def _offer_all(self, begun: list[Begun]) -> None:
        offers = (partial(self.offer, transaction, raw) for transaction, raw in begun)
        await to_the_end(offers, at_once=OFFERS_AT_ONCE // _ROUNDS_AT_ONCE)

    async def _begin(self, kinds: frozenset[Kind], number: int, max_messages: int) -> list[Begun]:
        """Choose messages, sign them, and put them in flight on disk, in so many transactions at most."""
        head, signer = self._watcher.head, self._signing.signer
        # The chain may have halted, or gone, since the turn began.
        if not self._may_send or head is None or signer is None:
            return []
        room = Room(
            self._pace.max_bytes - signer.size_of([]),
            self._settings.max_nonces,
            max_messages,
            kinds,
            transactions=max(1, self._pace.transactions - len(self._in_flight)),
            max_total_bytes=min(_BYTES_A_ROUND, self._settings.max_in_flight_bytes - self._in_flight.size),
        )
        before = self._timestamps.last
        timestamps = [self._timestamps.next(head.block_time_ns) for _ in range(min(number, room.transactions))]
        usable = [timestamp for timestamp in timestamps if timestamp is not None]
        if not usable:
            raise ChainUnavailableError(_NO_TIMESTAMP)
        signing = Signer(signer.sign, self._signing.account_number, usable)
        begun = await self._submissions.begin(head.height + 1, room, signing)
        # Those that were not used are given again: they would run ahead of the chain's clock.
        self._timestamps.last = begun[-1].transaction.timeout_ns if begun else before
        for transaction, _ in begun:
            self._in_flight.add(transaction)
        return begun

    def is_to_be_offered(self, transaction: TransactionInFlight) -> bool:
        """Tell whether a transaction that is in no block is to be offered again now: its mempool may have lost it."""
        seconds = self._settings.offer_again_seconds
        if transaction.is_taken:
            seconds *= 2 ** min(transaction.offers - 1, _DOUBLINGS)
        is_due = self._reactor.seconds() - transaction.offered_at >= seconds
        return is_due and not transaction.is_being_offered and self._poc_version.is_v1

    async def offer(self, transaction: TransactionInFlight, raw: bytes | None = None) -> None:
        """Offer a transaction's bytes to a mempool; a refusal counts only if no mempool can have had them before."""
        if self._poc_version.moved_reason is not None:
            await self._decisions.store_again(transaction, self._poc_version.moved_reason)
            return
        transaction.is_being_offered = True
        transaction.offered_at = self._reactor.seconds()
        transaction.offers += 1
        try:
            if transaction.size > _LARGE_BYTES:
                await self._turn_of_its_own()
            raw = raw if raw is not None else await self._sign_anew(transaction)
            if raw is not None:
                await self._broadcast(transaction, raw)
        finally:
            transaction.is_being_offered = False

    async def _turn_of_its_own(self) -> None:
        """Return in a turn of the reactor in which no other large transaction is offered: nodes are heard between."""
        async with self._turn:
            await deferLater(self._reactor, 0)

    async def _broadcast(self, transaction: TransactionInFlight, raw: bytes) -> None:
        # What may be known to a mempool is decided by a block, or by its time. Also a cancel leaves that open.
        is_first = not transaction.may_be_known
        transaction.may_be_known = True
        try:
            await self._broadcast_to_any(transaction, raw)
        except ChainRefusedError as error:
            self._problems.record(error)
            transaction.may_be_known = not is_first
            if is_first:
                await self._decisions.act(transaction, Answer(error.code, error.codespace, error.log, None))
        except MempoolFullError as error:
            self._problems.record(error)
            transaction.may_be_known = not is_first
            if is_first:
                await self._mempool_is_full(transaction, str(error))
        except (ChainUnavailableError, ChainStaleError) as error:
            # What is stale may be so because it is in a block already, by way of another node: time decides.
            self._problems.record(error)
        else:
            transaction.is_taken = True

    async def _broadcast_to_any(self, transaction: TransactionInFlight, raw: bytes) -> None:
        """Offer the bytes to one node, and to the others when it refuses them; raises what the first one said."""
        try:
            await self._rpc.broadcast_tx_sync(raw, turn=transaction.offers - 1)
        except ChainRefusedError as refusal:
            for name in self._rpc.usable_nodes():
                if name == refusal.node:
                    continue
                try:
                    await self._rpc.broadcast_to(name, raw)
                except (ChainRefusedError, MempoolFullError):
                    continue
                return
            raise

    async def _mempool_is_full(self, transaction: TransactionInFlight, log: str) -> None:
        """Take a transaction back that no mempool had room for, and send no other one before the next block."""
        if transaction.size > (max_size(log) or transaction.size):
            await self._decisions.act(transaction, Answer(TOO_LARGE, "sdk", log, None))
            return
        self._full_until = (self._height, self._reactor.seconds() + self._settings.offer_again_seconds)
        self._pace.mempool_is_full(self._in_flight.known)
        await self._decisions.store_again(transaction, f"{_NO_ROOM}: {log}")
        self._decisions.outcomes["no_room", ""] += 1

    async def _sign_anew(self, transaction: TransactionInFlight) -> bytes | None:
        """Make the bytes of a transaction anew: same messages, same timestamp, same bytes."""
        if self._signing.signer is None:
            await self._signing.refresh()
        signer = self._signing.signer
        bodies = await self._submissions.bodies(transaction.messages)
        if signer is None or len(bodies) != len(transaction.messages):
            return None
        urls = [message.type_url for message in transaction.messages]
        signed = signer.sign(list(zip(urls, bodies, strict=True)), transaction.timeout_ns)
        # Another key, chain or version signs other bytes: then only its time decides.
        return signed.raw if signed.hash == transaction.hash else None
