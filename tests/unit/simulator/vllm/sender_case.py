"""A simulated vLLM on a clock, whose requests a test answers."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.vllm.sender import SimulatedVllm
from dapi.simulator.vllm.settings import SenderSettings


class Exchanges:
    """Keeps each request with the time of its beginning; a test answers them, or ``answer`` does at once."""

    def __init__(self, reactor: Any) -> None:
        self.answer: int | Exception | None = None
        self.bodies: list[tuple[float, bytes]] = []
        self.urls: list[str] = []
        self.open: list[Deferred[tuple[int, bytes]]] = []
        self._reactor = reactor

    async def exchange(self, _method: str, url: str, body: bytes) -> tuple[int, bytes]:
        self.bodies.append((self._reactor.seconds(), body))
        self.urls.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer, b""
        answer: Deferred[tuple[int, bytes]] = Deferred()
        self.open.append(answer)
        return await answer

    def close(self) -> Deferred[None]:
        return succeed(None)


class SenderTestCase(SynchronousTestCase):
    """``results`` are the bodies of results that were delivered."""

    settings = SenderSettings(max_artifacts=3000)

    def setUp(self) -> None:
        # The reactor has no annotations.
        self.reactor: Any = MemoryReactorClock()
        self.exchanges = Exchanges(self.reactor)
        self.results: list[bytes] = []
        self.sender = SimulatedVllm(
            self.reactor,
            "http://127.0.0.1:9100/k/secret",
            node_num=1,
            node_count=3,
            model="a/b",
            settings=self.settings,
            on_result=self.results.append,
            random=Random(1),
            exchanges=self.exchanges,  # type: ignore[arg-type]
        )
        self.addCleanup(lambda: self.successResultOf(self.sender.stop()))

    def pass_time(self, seconds: float) -> None:
        self.reactor.pump([0.5] * round(2 * seconds))

    def times(self) -> list[float]:
        """When requests began."""
        return [at for at, _ in self.exchanges.bodies]
