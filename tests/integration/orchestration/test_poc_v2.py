"""A network with PoC v2: on a real host each v1 command would stop the vLLM in which it runs."""

from __future__ import annotations

import pytest_twisted
import treq

from dapi.messages import Kind
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import FIRST_POC, LONG, WholeDapi, whole

__all__ = ["whole"]


@pytest_twisted.ensureDeferred
async def test_no_command_goes_to_a_node_and_no_message_to_the_chain(whole: WholeDapi) -> None:
    whole.chain.state.rules.poc_v2 = True
    node = whole.node("node1")
    whole.start()
    # A whole PoC, and the way back to inference.
    for height in (
        FIRST_POC + 1,
        FIRST_POC + LONG.poc_stage_duration + 1,
        FIRST_POC + LONG.poc_stage_duration + LONG.poc_validation_delay + 1,
        FIRST_POC + LONG.epoch_length - 5,
    ):
        whole.produce_to(height)
        await whole.when_seen(height)
    assert whole.service is not None
    status = await soon(whole.service.status())
    assert status["chain"]["state"] == "moved"
    assert "poc.follow_chain: false" in status["chain"]["reason"]
    port = status["admin"]["port"]
    answer = await soon(treq.post(f"http://127.0.0.1:{port}/admin/v1/poc/inference?force=true", persistent=False))
    assert answer.code == 503
    assert "PoC v2" in (await soon(answer.json()))["error"]
    answer = await soon(treq.post(f"http://127.0.0.1:{port}/admin/v1/nodes/node1/disable", persistent=False))
    assert answer.code == 200
    answer = await soon(treq.post(f"http://127.0.0.1:{port}/admin/v1/nodes/node1/enable", persistent=False))
    assert answer.code == 200
    posted = [call.path for call in node.ledger.calls if call.method != "GET"]
    assert posted == []
    assert list(node.ledger.upgrades) == []
    assert whole.chain.blockchain.ledger == []
    for kind in Kind:
        assert (await whole.service.outbox.batches(kind=kind)).batches == []
    # The chain says v1 again: dapi goes on in the next PoC.
    whole.chain.state.rules.poc_v2 = False
    whole.produce_to(FIRST_POC + LONG.epoch_length + 2)
    await whole.when_all("generate")
    await until(lambda: len(whole.chain.state.batches) > 0)
