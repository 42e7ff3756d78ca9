"""Sends batches to receivers, to one after the other in short slices, and measures each slice.

All receivers of a comparison run at once and share one core; the sender has another one. Those whose turn it is not
have nothing to do, so the sides are measured within seconds of each other, in the same state of the machine.
"""

from __future__ import annotations

import itertools
import selectors
import time
from collections.abc import Iterable
from typing import NamedTuple

from bench.connections import Connection
from bench.load import Load
from bench.processes import Receiver

_PATIENCE_SECONDS = 60.0


class Slice(NamedTuple):
    """What one receiver did in its turn.

    ``rate`` is in batches/s, ``waits`` are the seconds from sending a batch until its answer, ``cpu_us`` is the CPU
    time that the receiver took for a batch, ``first_thread_us`` that of its first thread alone. Of their cores the
    receiver and the sender used these shares: where neither is near 1, the disk is what is waited for.
    """

    rate: float
    waits: list[float]
    cpu_us: float
    first_thread_us: float
    receiver_share: float
    sender_share: float


class Sender:
    """Sends batches of one size, each once."""

    def __init__(self, load: Load, receivers: Iterable[Receiver]) -> None:
        self._load = load
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        for receiver in receivers:
            for connection in receiver.connections:
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def drive(self, receiver: Receiver, seconds: float, outstanding: int) -> Slice:
        """Keep so many batches outstanding for this long, shared out among the connections; wait for what is left."""
        own_cpu, begin = time.process_time(), time.perf_counter()
        cpu, first_thread = receiver.cpu_seconds(), receiver.first_thread_seconds()
        deadline = begin + seconds
        for connection in receiver.connections:
            connection.offer(self._load, self._numbers, outstanding // len(receiver.connections))
        waits: list[float] = []
        in_time = 0
        while any(connection.sent_at for connection in receiver.connections):
            for connection in self._ready(receiver.name):
                answered = connection.receive()
                waits += answered
                if answered and time.perf_counter() < deadline:
                    in_time += len(answered)
                    connection.offer(self._load, self._numbers, len(answered))
                self._watch(connection)
        elapsed = time.perf_counter() - begin
        receivers_cpu = receiver.cpu_seconds() - cpu
        return Slice(
            rate=in_time / seconds,
            waits=waits,
            cpu_us=1e6 * receivers_cpu / len(waits),
            first_thread_us=1e6 * (receiver.first_thread_seconds() - first_thread) / len(waits),
            receiver_share=receivers_cpu / elapsed,
            sender_share=(time.process_time() - own_cpu) / elapsed,
        )

    def _ready(self, name: str) -> Iterable[Connection]:
        events = self._selector.select(_PATIENCE_SECONDS)
        if not events:
            raise TimeoutError(f"{name} answered nothing for {_PATIENCE_SECONDS:g} s")
        for key, event in events:
            connection: Connection = key.data
            if event & selectors.EVENT_WRITE:
                connection.flush()
            yield connection

    def _watch(self, connection: Connection) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.is_behind else 0)
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, connection)
