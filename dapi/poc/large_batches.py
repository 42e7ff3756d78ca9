"""Large batches: decoded off the reactor's thread, one at a time, so that nobody else waits for them.

What a body of 31 MiB takes of the processor, 60 ms, would be one step of the reactor's thread. On another thread it is
some hundred short calls into C, and the reactor has the interpreter between any two of them. In as many turns of
the reactor, the others' messages waited longer: each of them takes several turns (docs/evidence.md, 'Large batches').

One at a time, because each takes several times its own bytes until its message is on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThreadPool

from dapi.database.lane import Lane
from dapi.http.answers import shielded
from dapi.messages import Envelope, GeneratedMessage, ProofBatch, Receipt, ValidatedBatch
from dapi.messages.sizes import MIB
from dapi.timing.fair_share import Account
from dapi.timing.pool_thread import MeasuredThread, PoolThread

LARGE_BYTES: Final = MIB
"""What comes in less is decoded in 3 ms at most."""

_COMMIT_SECONDS_PER_BYTE: Final = 1.5e-9
"""For about so long, of a generated batch, all other messages wait for the disk (docs/evidence.md, 'Large batches')."""

T = TypeVar("T")
D = TypeVar("D", Envelope, ProofBatch, ValidatedBatch)

Decode: TypeAlias = Callable[[bytes], tuple[D, bool]]
"""One of the functions ``decode_large_…`` of wire.py."""

Handle: TypeAlias = Callable[[D, int, PoolThread], Deferred[Receipt]]
"""Handles what was decoded, of so many bytes; what takes long with it is for the thread."""


class LargeBatches(Service):
    """Has large batches decoded and handled, in the order in which they come.

    While the service runs it has a thread of its own: names that are looked up in vain, one for each node, may hold all
    of the reactor's pool. Otherwise it uses that. ``cpu_seconds`` tells what the calling thread has used.
    """

    def __init__(self, reactor: Any, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._reactor = reactor
        self._cpu_seconds = cpu_seconds
        self._lane = Lane(reactor, "dapi large batches")
        self._turn = DeferredLock()

    def startService(self) -> None:
        """Start the thread."""
        super().startService()  # type: ignore[no-untyped-call]
        self._lane.start()

    def stopService(self) -> Deferred[None]:
        """End the thread when what it does now is done; fires with None then.

        What has begun goes on, on the reactor's pool. What waits is dropped by whoever sent it, since nobody is
        answered any more.
        """
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        return self._lane.stop()

    def take(self, payload: bytes, decode: Decode[D], handle: Handle[D], account: Account | None) -> Deferred[Receipt]:
        """Decode what has come in one piece, and have it handled.

        Fires as ``handle`` does; fails with what that raises, or with MessageError when it is no valid batch. Cancelled
        while it waits for its turn, it is dropped; after that, cancelling does not end its work. What the work takes of
        the processor, and of the disk, is charged to the ``account``.
        """
        return Deferred.fromCoroutine(self._take([payload], decode, handle, account))

    async def _take(
        self, payload: list[bytes], decode: Decode[D], handle: Handle[D], account: Account | None
    ) -> Receipt:
        await self._turn.acquire()
        working = Deferred.fromCoroutine(self._work(payload, decode, handle, account))
        working.addBoth(self._end_turn)
        return await shielded(working, "storing a large batch")

    def _end_turn(self, result: Any) -> Any:
        self._turn.release()
        return result

    def _submit(self, function: Callable[[], T]) -> Deferred[T]:
        # Asked for each step: the service may stop between two, and its thread does nothing after that.
        if self.running:
            return self._lane.submit(function)
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)

    async def _work(
        self, payload: list[bytes], decode: Decode[D], handle: Handle[D], account: Account | None
    ) -> Receipt:
        size = len(payload[0])
        thread = MeasuredThread(self._submit, self._cpu_seconds)
        # Unless it turns out to have been short calls: to refuse a payload may take one long one.
        in_pieces = False
        try:
            decoded, in_pieces = await thread.run(_decode, payload, decode)
        finally:
            decoding_seconds = thread.used_seconds
            if account is not None:
                account.charge(decoding_seconds, is_step=not in_pieces)
        is_generated = isinstance(decoded, ProofBatch | GeneratedMessage)
        try:
            handled = handle(decoded, size, thread)
            # It takes as much as what it came in, and is not to wait for the disk.
            del decoded
            return await handled
        finally:
            if account is not None:
                account.charge(thread.used_seconds - decoding_seconds, is_step=False)
                if is_generated:
                    account.charge(size * _COMMIT_SECONDS_PER_BYTE)


# The other thread.


def _decode(payload: list[bytes], decode: Decode[D]) -> tuple[D, bool]:
    # Nobody else has the payload now, so its memory is free when this returns.
    return decode(payload.pop())
