"""A stage of many megabytes from a node of the chain, sampled while it comes; whatever ends it leaves nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from bench.stage_server import NONCES, answer, keys
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages.sizes import MIB
from dapi.orchestration.samples import Samples, Sampling, query_samples
from dapi.simulator.chain.rpc import _RpcResource
from dapi.timing.waiters import Waiters
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import FIRST_POC, VALIDATION_START, WholeDapi, whole

__all__ = ["whole"]

reactor: Any = global_reactor
PARTICIPANTS = 5
BATCHES = 100
SAMPLING = Sampling(public_key="02aa", block_hash="AB", block_height=10, size=200, secret=b"secret")


@implementer(IPullProducer)
class Answering:
    """Sends an answer as fast as it is read; loses the connection after ``lost_after`` chunks."""

    def __init__(self, request: Request, chunks: Iterator[bytes], lost_after: int | None) -> None:
        self._request = request
        self._chunks = chunks
        self._left = lost_after
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self._left == 0:
            transport: Any = self._request.transport
            transport.abortConnection()
            return
        if self._left is not None:
            self._left -= 1
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._request.write(chunk)
        else:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        pass


class StageNode(Resource):
    """A node of the chain that has a large stage; ``when_lost`` fires when a connection is lost before the end."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.lost_after: int | None = None
        self.when_lost: Deferred[None] = Deferred()
        self.heights: list[str] = []
        self.listening = reactor.listenTCP(0, Site(self, reactor=reactor), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.listening.getHost().port}"

    def render_POST(self, request: Request) -> int:
        assert request.content is not None
        call = json.load(request.content)
        self.heights.append(call["params"]["height"])
        request.notifyFinish().addErrback(lambda _: self.when_lost.callback(None))
        Answering(request, answer(call["id"], call["params"]["height"], PARTICIPANTS, BATCHES), self.lost_after)
        return NOT_DONE_YET


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[StageNode]:
    node = StageNode()
    yield node
    await node.listening.stopListening()


@pytest_twisted.async_yield_fixture
async def rpc(node: StageNode) -> AsyncIterator[ChainRpc]:
    rpc = ChainRpc(reactor, [node.url])
    yield rpc
    await soon(rpc.close())


def ask(rpc: ChainRpc, max_bytes: int = 100 * MIB) -> Deferred[Samples]:
    return Deferred.fromCoroutine(query_samples(rpc, SAMPLING, 22, max_bytes=max_bytes))


@pytest_twisted.ensureDeferred
async def test_all_participants_are_sampled(node: StageNode, rpc: ChainRpc) -> None:
    samples = await soon(ask(rpc))
    assert [batch.public_key for batch in samples.batches] == [key.public_key.hex() for key in keys(PARTICIPANTS)]
    for batch in samples.batches:
        assert len(set(batch.nonces)) == SAMPLING.size
        # They come from all over the batches.
        assert len({nonce // NONCES for nonce in batch.nonces}) > BATCHES // 2
    assert node.heights == ["22"]
    assert await soon(ask(rpc)) == samples


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_lost_in_the_midst(node: StageNode, rpc: ChainRpc) -> None:
    node.lost_after = 10
    with pytest.raises(ChainUnavailableError):
        await soon(ask(rpc))
    node.lost_after = None
    assert len((await soon(ask(rpc))).batches) == PARTICIPANTS


@pytest_twisted.ensureDeferred
async def test_more_than_the_bound(node: StageNode, rpc: ChainRpc) -> None:
    with pytest.raises(ChainUnavailableError, match=f"PocBatchesForStage.*longer than {MIB} bytes"):
        await soon(ask(rpc, max_bytes=MIB))
    await soon(node.when_lost)


@pytest_twisted.ensureDeferred
async def test_a_stop_in_the_midst(node: StageNode, rpc: ChainRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    begins: Waiters[None] = Waiters()

    def begin(_sampler: object, _piece: bytes) -> None:
        reactor.callFromThread(begins.fire, None)

    monkeypatch.setattr("dapi.orchestration.samples.Sampler.feed", begin)
    began = begins.wait()
    asking = ask(rpc)
    await soon(began)
    await soon(rpc.close())
    with pytest.raises(CancelledError):
        await soon(asking)
    await soon(node.when_lost)


@pytest_twisted.ensureDeferred
async def test_verdicts_on_all(whole: WholeDapi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole dapi, whose chain has a large stage of others: each of them has its verdict in the chain's store."""
    render = _RpcResource.render_POST

    def render_large_stage(resource: _RpcResource, request: Request) -> int:
        assert request.content is not None
        call = json.load(request.content)
        request.content.seek(0)
        if not str(call["params"].get("path")).endswith("PocBatchesForStage"):
            return render(resource, request)
        Answering(request, answer(call["id"], call["params"]["height"], PARTICIPANTS, BATCHES), None)
        return NOT_DONE_YET

    monkeypatch.setattr(_RpcResource, "render_POST", render_large_stage)
    whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    whole.produce_to(VALIDATION_START + 1)
    expected = {(FIRST_POC, key.address, whole.key.address) for key in keys(PARTICIPANTS)}
    await until(lambda: expected <= whole.chain.state.validations.keys())
