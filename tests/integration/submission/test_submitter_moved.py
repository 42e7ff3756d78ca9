"""A network that has moved to PoC v2: nothing more is sent to it, and what is stored stays."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogLevel
from twisted.web.resource import Resource
from twisted.web.server import Site

from dapi.messages import State
from dapi.simulator.chain.rules import Rules
from tests.integration.submission.chain_and_dapi import Maker, reactor
from tests.integration.waiting import until
from tests.logs import captured_log


@pytest.mark.parametrize("in_check_tx", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_network_that_moved_to_poc_v2_gets_nothing_until_it_is_back(maker: Maker, in_check_tx: bool) -> None:
    # Blocks by hand: after some more of them dapi would ask for the parameters, which tell it, too.
    chain = maker.chain(None, rules=Rules(windows_in_check_tx=in_check_tx))
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await chain.mempool(1)
    await dapi.next_block(chain)
    await dapi.when_all(State.CONFIRMED, 1)
    chain.state.rules.poc_v2 = True
    with captured_log() as log:
        await dapi.record(2)
        await dapi.record(3)
        status = await dapi.when_status(state="moved")
        await until(lambda: log.lines(LogLevel.critical))
    assert log.lines(LogLevel.critical) == [status["reason"]]
    assert "PoC v2" in status["reason"]
    assert "1161" in status["reason"]
    counts = await dapi.when(lambda counts: counts["in_flight"] == 0)
    assert (counts["stored"], counts["confirmed"], counts["failed"]) == (2, 1, 0)
    sent = len(dapi.rpc.sent)
    await dapi.record(4)
    for _ in range(5):
        await dapi.next_block(chain)
    assert len(dapi.rpc.sent) == sent
    # It is no latch: the chain says v1 again, and all that was kept goes.
    chain.state.rules.poc_v2 = False
    await dapi.blocks_until(chain, lambda counts: counts["confirmed"] == 4)


class PocV2(Resource):
    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(503)
        return b"V1 endpoints disabled when poc_v2_enabled=true"


class Moved:
    """What stands in front of a network that has moved."""

    def __init__(self) -> None:
        self.site = Site(PocV2())
        self.listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.simulated = self
        self.url = f"http://127.0.0.1:{self.listening.getHost().port}"


@pytest_twisted.ensureDeferred
async def test_503_from_anywhere_says_the_same(maker: Maker) -> None:
    moved = Moved()
    try:
        dapi = maker.dapi(moved)  # type: ignore[arg-type]
        await dapi.record(1)
        status = await dapi.when_status(state="moved")
        assert "poc_v2" in status["reason"]
        await dapi.when(lambda counts: counts["stored"] == 1)
    finally:
        await moved.listening.stopListening()
