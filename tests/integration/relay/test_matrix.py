"""Each fault at a random moment of a stream of callbacks: all that dapi answered with 200 is committed in the end.

``DAPI_FAULT_ROUNDS=20`` makes so many rounds of each, where usually there is one.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dapi.http.exchange import NoAnswerError
from tests.integration.relay.host import MODEL, PATH, Host, P, body_of, reactor
from tests.integration.waiting import soon, until

ROUNDS = int(os.environ.get("DAPI_FAULT_ROUNDS", "1"))
NONCES = 20


class Stream:
    """Posts a new body again and again; ``answered`` are the hashes of those that dapi answered with 200."""

    def __init__(self, host: Host) -> None:
        self.answered: dict[bytes, bytes] = {}
        self.is_ending = False
        self._host = host

    async def run(self) -> None:
        number = 0
        while not self.is_ending:
            first = 1 + 3 * NONCES * number
            body = body_of(*range(first, first + 3 * NONCES, 3))
            try:
                status, _ = await self._host.post(body)
            except NoAnswerError:
                # dapi itself is away: a node sends the same bytes again.
                status = 0
            if status == 200:
                self.answered[hashlib.sha256(body).digest()] = body
                number += 1
            await deferLater(reactor, 0.02)


async def crash(host: Host, seconds: float) -> None:
    await host.api.crash(seconds)


async def hang(host: Host, seconds: float) -> None:
    host.api.faults.hangs = True
    await deferLater(reactor, seconds)
    host.api.faults.hangs = False
    # What hangs is answered by nobody: the container is started anew.
    await host.api.crash(0.0)


async def refuse(host: Host, seconds: float) -> None:
    host.api.faults.status = 503
    await deferLater(reactor, seconds)
    host.api.faults.status = None


async def flush_nothing(host: Host, seconds: float) -> None:
    host.api.faults.flush_fails = True
    await deferLater(reactor, seconds)
    host.api.faults.flush_fails = False


async def forget(host: Host, seconds: float) -> None:
    """Lose what is in memory without a new start, which nothing tells."""
    await deferLater(reactor, seconds / 2)
    if (P, MODEL) in host.api.artifacts:
        host.api.artifacts[P, MODEL].crash()


async def damage(host: Host, seconds: float) -> None:
    await deferLater(reactor, seconds / 2)
    if (P, MODEL) in host.api.artifacts:
        host.api.damage(MODEL, NONCES // 2)


async def restart(host: Host, _seconds: float) -> None:
    """Stop the container cleanly, which writes nothing either."""
    await soon(host.api.stopService())
    await host.start_api()


async def cut(host: Host, seconds: float) -> None:
    """Cut the network between dapi and the container's three ports: nothing comes, and no connection ends."""
    for proxy in host.proxies:
        proxy.cut()
    await deferLater(reactor, seconds)
    for proxy in host.proxies:
        proxy.mend()


async def restart_dapi(host: Host, seconds: float) -> None:
    await host.stop()
    await deferLater(reactor, seconds)
    await host.start()


async def fill_disk(host: Host, seconds: float) -> None:
    folder = host.folder / "relay"
    folder.rename(host.folder / "gone")
    await deferLater(reactor, seconds)
    (host.folder / "gone").rename(folder)


FAULTS: dict[str, Callable[[Host, float], Awaitable[Any]]] = {
    "crash": crash,
    "hang": hang,
    "refuse": refuse,
    "flush nothing": flush_nothing,
    "forget": forget,
    "damage": damage,
    "restart": restart,
    "cut": cut,
    "restart dapi": restart_dapi,
    "full disk": fill_disk,
}


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path, settled_seconds=1.0)
    await host.start_api()
    host.put_network_between()
    await host.start()
    try:
        yield host
    finally:
        await host.end()


@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize("fault", FAULTS)
@pytest_twisted.ensureDeferred
async def test_all_that_was_answered_is_committed(host: Host, fault: str, round_number: int) -> None:
    chance = random.Random(f"{fault} {round_number}")
    stream = Stream(host)
    running = Deferred.fromCoroutine(stream.run())
    await until(lambda: len(stream.answered) >= 3)
    await deferLater(reactor, chance.uniform(0.0, 0.6))
    await FAULTS[fault](host, chance.uniform(0.1, 0.8))
    so_far = len(stream.answered)
    await until(lambda: len(stream.answered) >= so_far + 3)
    stream.is_ending = True
    await soon(running)
    wanted = NONCES * len(stream.answered)
    # A damaged file makes the count fall; what was committed before stays.
    await until(lambda: host.stored() >= wanted and host.api.committed(P, MODEL) >= wanted)
    assert host.api.committed(P, MODEL) == wanted
    assert {post.target for post in host.api.posts} == {PATH.encode()}
    # What came twice came in the same bytes; a post without an answer may have come as well.
    assert stream.answered.keys() <= {post.digest for post in host.api.posts}
