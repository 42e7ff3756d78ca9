"""Twenty nodes in one stage, each with a fault of its own: every batch is acknowledged once, and once in a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest_twisted
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from dapi.messages import ProofBatch, content_id
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.integration.faults.link import Fault, Link
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import FIRST_POC, GENERATION_END, VALIDATION_END, VALIDATION_START, WholeDapi, reactor

HOST = "ml-node.test"
PATIENCE_SECONDS = 120
Answer = int | Literal["junk", "silence"]


@implementer(IHostResolution)
class Resolution:
    name = HOST

    def cancel(self) -> None:
        """Nothing to cancel."""


@implementer(IHostnameResolver)
class Resolver:
    """Resolves one name, while it ``works``, and leaves all others to the system; ``failures`` counts."""

    def __init__(self) -> None:
        self.works = True
        self.failures = 0
        self.others = reactor.nameResolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        if hostName != HOST:
            found: IHostResolution = self.others.resolveHostName(
                resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics
            )
            return found
        resolution = Resolution()
        resolutionReceiver.resolutionBegan(resolution)
        if self.works:
            resolutionReceiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        self.failures += not self.works
        resolutionReceiver.resolutionComplete()
        return resolution


class Case:
    """One node, and the line to it."""

    def __init__(self, node: SimulatedMLNode, resolver: Resolver) -> None:
        self.node = node
        self.link = Link(reactor, node.port)
        self.resolver = resolver

    async def more(self, number: int, **way: Any) -> None:
        """Wait until the node has delivered so many more."""
        ledger = self.node.ledger
        delivered = len(ledger.delivered(**way))
        await soon(ledger.when(lambda: len(ledger.delivered(**way)) >= delivered + number), PATIENCE_SECONDS)


# Each has a fault begin and end, and waits until it has had its effect.


async def on_the_line(fault: Fault, case: Case) -> None:
    case.link.fault = fault
    await until(lambda: case.link.harmed >= 3, PATIENCE_SECONDS)
    await case.more(5)
    case.link.heal()


async def close(code: int | None, case: Case) -> None:
    connections = len(case.node.ledger.connections)
    if code is None:
        case.node.drop_connections()
    else:
        case.node.close_connections(code)
    await until(lambda: len(case.node.ledger.connections) > connections, PATIENCE_SECONDS)


async def refuse(answer: Answer, case: Case) -> None:
    upgrades = len(case.node.ledger.upgrades)
    case.node.settings.refuse_upgrade = answer
    case.node.drop_connections()
    await until(lambda: len(case.node.ledger.upgrades) > upgrades, PATIENCE_SECONDS)
    await case.more(3, via="http")
    case.node.settings.refuse_upgrade = None
    # The one that is kept waiting would be so for long.
    for pair in list(case.link.pairs):
        pair.cut()


async def lose_the_name(case: Case) -> None:
    case.resolver.works = False
    case.node.drop_connections()
    await until(lambda: case.resolver.failures >= 2, PATIENCE_SECONDS)
    await case.more(3, via="http")
    case.resolver.works = True


async def be_deaf(case: Case) -> None:
    await soon(case.node.be_deaf_for(1.0), PATIENCE_SECONDS)


async def crash(case: Case) -> None:
    await case.node.crash()
    case.node.startService()


FAULTS: dict[str, Callable[[Case], Awaitable[None]]] = {
    **{fault.name: partial(on_the_line, fault) for fault in Fault if fault is not Fault.NONE},
    **{f"closed with {code or 1006}": partial(close, code) for code in (1001, None, 1008, 1011, 1012)},
    **{f"answers {answer}": partial(refuse, answer) for answer in (301, 401, 403, 404, 429, 500, "junk", "silence")},
    "no address": lose_the_name,
    "deaf": be_deaf,
    "crash": crash,
}


@pytest_twisted.async_yield_fixture
async def whole(tmp_path: Path) -> AsyncIterator[WholeDapi]:
    # So that a slow machine comes to the end of it within the generation.
    whole = WholeDapi(tmp_path, block_seconds=2.0)
    yield whole
    await whole.end()


@pytest_twisted.async_yield_fixture
async def cases(whole: WholeDapi) -> AsyncIterator[dict[str, Case]]:
    resolver = Resolver()
    reactor.installNameResolver(resolver)
    cases = {fault: Case(whole.node(f"node{number}"), resolver) for number, fault in enumerate(FAULTS)}
    for fault, case in cases.items():
        host = HOST if fault == "no address" else "127.0.0.1"
        whole.addresses[case.node.node_name] = (host, case.link.port)
    yield cases
    reactor.installNameResolver(resolver.others)
    for case in cases.values():
        await case.link.close()


async def play(fault: str, case: Case) -> None:
    """Have a node deliver before, during and after its fault, at the end over its WebSocket."""
    await case.more(2, via="websocket")
    await FAULTS[fault](case)
    await case.more(2, via="websocket")


def has_delivered_all(node: SimulatedMLNode) -> bool:
    """Whether nothing is left of what a node has made, but for what it lost with its memory."""
    return all(entry.lost or entry.delivered_via is not None for entry in node.ledger.batches)


def ids(entries: Sequence[Any]) -> set[str]:
    return {content_id(msgspec.convert(entry.batch, ProofBatch)) for entry in entries}


@pytest_twisted.ensureDeferred
async def test_each_batch_is_in_a_block_once(whole: WholeDapi, cases: dict[str, Case]) -> None:
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await gatherResults([Deferred.fromCoroutine(play(fault, case)) for fault, case in cases.items()])
    for case in cases.values():
        case.node.settings.batches_per_walk = 0
    for case in cases.values():
        await until(partial(has_delivered_all, case.node), PATIENCE_SECONDS)
    assert whole.chain.height < GENERATION_END
    await whole.when_nothing_is_left()
    on_chain: dict[str, set[str]] = {}
    for (_, _, batch_id), batch in whole.chain.state.batches.items():
        on_chain.setdefault(batch.message.node_id, set()).add(batch_id)
    for fault, case in cases.items():
        generated = [entry for entry in case.node.ledger.batches if entry.kind == "generated"]
        acknowledged = ids(case.node.ledger.delivered(kind="generated"))
        stored = on_chain[case.node.node_name]
        # What the node lost with its own memory may have come to dapi before.
        assert acknowledged <= stored <= ids(generated), fault
        assert acknowledged == ids([entry for entry in generated if not entry.lost]), fault
    assert not whole.chain.state.doubled_nonces()
    whole.produce_to(VALIDATION_START + 1)
    await whole.when_all("validate")
    own = whole.key.address
    await until(lambda: (FIRST_POC, own, own) in whole.chain.state.validations, PATIENCE_SECONDS)
    whole.produce_to(VALIDATION_END + 1)
    await whole.when_all(None)
