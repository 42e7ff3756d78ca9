"""A network that begins anew under its old id while dapi runs: dapi begins afresh with it."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.logger import LogLevel

from dapi.chain import block_watcher
from tests.integration.waiting import until, until_awaited
from tests.integration.whole_dapi import FIRST_POC, WholeDapi, when_in, whole
from tests.logs import captured_log

__all__ = ["whole"]


@pytest_twisted.ensureDeferred
async def test_the_new_one_gets_seeds_and_batches_of_its_own(whole: WholeDapi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_watcher, "_ANOTHER_CHAIN_SECONDS", 1.0)
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC + 1)
    await when_in(node, "generate")
    participant = whole.key.address
    await until(lambda: (1, participant) in whole.chain.state.seeds and whole.chain.state.batches)
    # From here on nothing of what comes in gets into a block of the old chain.
    whole.chain.is_halted = True
    old = whole.chain.state

    async def has_unfinished() -> bool:
        counts = await service.outbox.counts()
        return counts["stored"] + counts["in_flight"] > 0

    await until_awaited(has_unfinished)
    with captured_log() as log:
        whole.chain.begin_anew()
        whole.chain.is_halted = False
        await until(lambda: log.lines(LogLevel.critical, "dapi begins afresh, because the chain is another one"))
        await until(lambda: log.lines(LogLevel.critical, "this is another chain"))
    assert whole.chain.state is not old
    whole.produce_to(FIRST_POC + 1)
    await until(lambda: (1, participant) in whole.chain.state.seeds and whole.chain.state.batches)
    assert not old.batches.keys() & whole.chain.state.batches.keys()
