"""A thousand nodes drop at once: each is tried again after 3 to 5 s, and an attempt costs little."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import ClientFactory

from dapi.poc.batch_handler import BatchHandler
from dapi.poc.websocket_client import WebSocketClient
from tests.integration.ports import free_port
from tests.integration.waiting import until

reactor: Any = global_reactor
NODES = 1000
# Of its process's CPU time, in milliseconds.
ALLOWED_PER_ATTEMPT = 0.5
# Kolmogorov and Smirnov: a distance above this one comes by chance in one of a thousand samples, times the root of its
# size.
CRITICAL = 1.95


class Attempts:
    """What all clients do: the delays that they drew, and how long they waited; a busy machine adds to the latter."""

    def __init__(self) -> None:
        self.failed = 0
        self.drawn: list[float] = []
        self.delays: list[float] = []


class CountedClient(WebSocketClient):
    """A client that tells when it tries."""

    attempts: Attempts
    _failed_at: float | None = None

    def record_failure(self, reason: str) -> None:
        assert "Connection refused" in reason
        super().record_failure(reason)
        self._failed_at = time.monotonic()
        self.attempts.failed += 1

    def _choose_delay(self, _failed_attempts: int) -> float:
        self.attempts.drawn.append(super()._choose_delay(_failed_attempts))
        return self.attempts.drawn[-1]

    def _connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._failed_at is not None:
            self.attempts.delays.append(time.monotonic() - self._failed_at)
        return super()._connect(factory)


class CountedFactory(ClientFactory):
    """Counts attempts with nothing of dapi in them."""

    noisy = False
    failed = 0

    def clientConnectionFailed(self, connector: object, reason: object) -> None:
        self.failed += 1


def distance_from_uniform(sample: Sequence[float], low: float, high: float) -> float:
    """The greatest difference between the share of the sample up to a value and the uniform distribution's."""
    expected = [min(1.0, max(0.0, (value - low) / (high - low))) for value in sorted(sample)]
    size = len(expected)
    return max(max((rank + 1) / size - share, share - rank / size) for rank, share in enumerate(expected))


async def bare_attempts(port: int, number: int) -> float:
    """Return how many ms of CPU an attempt takes with nothing but Twisted."""
    factory = CountedFactory()
    began = time.process_time()
    for _ in range(number):
        reactor.connectTCP("127.0.0.1", port, factory)
    await until(lambda: factory.failed == number)
    return (time.process_time() - began) * 1000 / number


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    assert distance_from_uniform([0.5], 0, 1) == 0.5
    assert abs(distance_from_uniform([0.1, 0.4, 0.9], 0, 1) - (2 / 3 - 0.4)) < 1e-9
    drawn = random.Random(1)
    uniform = [drawn.uniform(3, 5) for _ in range(NODES)]
    assert distance_from_uniform(uniform, 3, 5) < CRITICAL / NODES**0.5
    assert distance_from_uniform([drawn.triangular(3, 5) for _ in range(NODES)], 3, 5) > CRITICAL / NODES**0.5


@pytest_twisted.ensureDeferred
async def test_a_thousand_are_tried_again_in_time_and_at_little_cost() -> None:
    port = free_port()
    attempts = Attempts()
    drawn = random.Random(7)
    clients = []
    for number in range(NODES):
        handler = BatchHandler(f"node{number}", number, None)  # type: ignore[arg-type]
        client = CountedClient(reactor, f"http://127.0.0.1:{port}", handler, node_id=f"node{number}", random=drawn)
        client.attempts = attempts
        clients.append(client)
    began = time.process_time()
    for client in clients:
        client.startService()
    await until(lambda: len(attempts.delays) >= NODES)
    await until(lambda: attempts.failed >= 2 * NODES)
    cost = (time.process_time() - began) * 1000 / attempts.failed
    await gatherResults([client.stopService() for client in clients])
    bare = await bare_attempts(port, 500)
    print(f"{cost:.3f} ms of CPU for an attempt, {bare:.3f} ms with nothing but Twisted")
    # On a machine that is slow, Twisted is slow as well.
    assert cost < max(ALLOWED_PER_ATTEMPT, 6 * bare)
    first = attempts.delays[:NODES]
    # By another clock than the reactor's.
    assert min(first) >= 2.99
    asked = attempts.drawn[:NODES]
    assert 3 <= min(asked) <= max(asked) <= 5
    assert distance_from_uniform(asked, 3, 5) < CRITICAL / NODES**0.5
    # None is left waiting: a second delay would take as long again.
    assert sorted(first)[NODES // 2] < 3 * 4
