"""Nothing is lost while the preferred node of two fails in the ways that were measured.

See docs/protocol/measured.md, 'Chain nodes that fail'.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from dapi.messages import State
from dapi.simulator.chain.node_service import SimulatedNode
from tests.integration.submission.chain_and_dapi import Chain, Dapi
from tests.integration.waiting import soon, until

reactor: Any = global_reactor
BATCHES = 60
HIDES = "says of all that it is in no block"


def start_catching_up(node: SimulatedNode) -> None:
    node.switches.is_catching_up = True
    node.switches.lag_blocks = 10


def stop_catching_up(node: SimulatedNode) -> None:
    node.switches.is_catching_up = False
    node.switches.lag_blocks = 0


def set_switch(name: str, wanted: bool, node: SimulatedNode) -> None:
    setattr(node.switches, name, wanted)


TROUBLES: dict[str, tuple[Callable[[SimulatedNode], None], Callable[[SimulatedNode], None]]] = {
    "partitioned": (SimulatedNode.partition, SimulatedNode.reconnect),
    "frozen": (SimulatedNode.freeze, SimulatedNode.thaw),
    "catching up": (start_catching_up, stop_catching_up),
    "says of all that it is in a block": (
        partial(set_switch, "invents_inclusions", True),
        partial(set_switch, "invents_inclusions", False),
    ),
    HIDES: (
        partial(set_switch, "hides_inclusions", True),
        partial(set_switch, "hides_inclusions", False),
    ),
}


@pytest_twisted.async_yield_fixture
async def chain() -> AsyncIterator[Any]:
    made = Chain(0.2)
    made.simulated.add_node()
    for node in made.simulated.nodes:
        node.settings.blocks_per_second = 50
    made.simulated.startService()
    yield made
    await soon(made.simulated.stopService())


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest_twisted.ensureDeferred
async def test_the_other_node_takes_all(chain: Chain, tmp_path: Path, trouble: str) -> None:
    begin, end = TROUBLES[trouble]
    first, second = chain.simulated.nodes
    dapi = Dapi(tmp_path / "outbox.db", [first.url, second.url], timeout_seconds=1)
    dapi.start()
    try:
        for nonce in range(BATCHES):
            if nonce == BATCHES // 3:
                begin(first)
            elif nonce == 2 * BATCHES // 3:
                if trouble != HIDES:
                    await dapi.when(lambda counts: counts[State.CONFIRMED] >= BATCHES // 2)
                # Against one node's word none is confirmed; it is on the chain all the same.
                await until(lambda: len(chain.batch_ids()) >= BATCHES // 2)
                end(first)
            await soon(dapi.record(nonce))
            await deferLater(reactor, 0.02)
        await dapi.when_all(State.CONFIRMED, BATCHES)
        assert len(chain.batch_ids()) == BATCHES
        assert not chain.state.doubled_nonces()
        await until(lambda: dapi.watcher.problem is None)
    finally:
        await dapi.stop()
