"""The WebSocket of the simulated ML node, and its traps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept

from tests.integration.simulated_node import World, finished, reactor, soon


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


@pytest_twisted.ensureDeferred
async def test_a_restart_leaves_the_open_connection_dead(world: World) -> None:
    await world.init()
    client = await world.open()
    await soon(world.ledger.when_delivered(1, via="websocket"))
    await world.init(batch_size=99)
    seen = len(client.messages)
    await soon(world.ledger.when_delivered(3, via="http"))
    client.sendPing(b"are you there")
    await client.when(lambda: client.pongs == [b"are you there"])
    assert len(client.messages) == seen
    assert not client.closed.called
    # Closing first, and connecting then, brings it back.
    client.sendClose(1000)
    await soon(client.closed)
    await soon(world.node.when_client_gone())
    client = await world.open()
    await client.when_messages(1)


@pytest_twisted.ensureDeferred
async def test_a_restart_that_nobody_asked_for_does_the_same(world: World) -> None:
    await world.init()
    client = await world.open()
    await client.when_messages(1)
    await soon(world.node.restart_pow())
    by_http = world.ledger.counts["http"]
    await soon(world.ledger.when(lambda: world.ledger.counts["http"] > by_http + 1))
    assert not client.closed.called


@pytest_twisted.ensureDeferred
async def test_closing_the_old_connection_late_makes_the_new_one_useless(world: World) -> None:
    await world.init()
    old = await world.open()
    await world.init(batch_size=99)
    new = await world.open()
    await new.when_messages(1)
    old.sendClose(1000)
    await soon(old.closed)
    await soon(world.ledger.when(lambda: world.node.run is not None and not world.node.run.client_connected))
    # What was offered already may still be on its way.
    await soon(world.ledger.when(lambda: all(a.outcome for entry in world.ledger.batches for a in entry.attempts)))
    seen, by_http = len(new.messages), world.ledger.counts["http"]
    await soon(world.ledger.when(lambda: world.ledger.counts["http"] >= by_http + 3))
    assert len(new.messages) == seen
    assert not new.closed.called


@pytest_twisted.ensureDeferred
async def test_what_is_offered_while_a_connection_closes_goes_by_http(world: World) -> None:
    await world.init()
    client = await world.open()
    await client.when_messages(1)
    client.onCloseFrame = lambda *_: None
    world.node.close_connections(1000)
    seen, by_http = len(client.messages), world.ledger.counts["http"]
    await soon(world.ledger.when(lambda: world.ledger.counts["http"] >= by_http + 2))
    assert len(client.messages) == seen


@pytest_twisted.ensureDeferred
async def test_refusals_come_after_the_upgrade(world: World) -> None:
    client = world.connect()
    assert await soon(client.closed) == (1008, "PoW is not running")
    assert client.opened.called
    await world.init()
    world.settings.websocket_ready = False
    assert await soon(world.connect().closed) == (1008, "WebSocket infrastructure not initialized")
    world.settings.websocket_ready = True
    first = await world.open()
    assert await soon(world.connect().closed) == (1008, "Another client is already connected")
    # The refusal left the first one in its place.
    await first.when_messages(2)
    assert [connection.refused for connection in world.ledger.connections][-1] == "Another client is already connected"


@pytest_twisted.ensureDeferred
async def test_stopping_leaves_the_connection_open_and_deaf_meanwhile(world: World) -> None:
    world.settings.deaf_seconds = 0.5
    await world.init()
    client = await world.open()
    await client.when_messages(1)
    stopping = soon(world.http.post(world.node.base_url + "/api/v1/stop"))
    await soon(world.ledger.when(lambda: world.node.run is None))
    began = reactor.seconds()
    client.sendPing(b"deaf")
    state = world.call("GET", "/api/v1/state")
    await client.when(lambda: client.pongs == [b"deaf"])
    assert reactor.seconds() - began >= 0.4
    assert await state == (200, {"state": "STOPPED"})
    response = await stopping
    await soon(response.content())
    assert not client.closed.called


@pytest_twisted.ensureDeferred
async def test_deaf_on_demand(world: World) -> None:
    await world.init()
    client = await world.open()
    deaf = soon(world.node.be_deaf_for(0.3))
    client.sendPing(b"x")
    late = world.connect()
    await finished(0.15)
    assert not client.pongs
    assert not late.opened.called
    await deaf
    await client.when(lambda: client.pongs == [b"x"])
    await soon(late.closed)


@pytest.mark.parametrize("payload", [b"no json", b"\x00"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_json_text_makes_the_node_drop_the_connection(world: World, payload: bytes) -> None:
    await world.init()
    client = await world.open(acks=False)
    client.sendMessage(payload, isBinary=payload == b"\x00")
    assert await soon(client.closed) == (None, None)
    await soon(world.node.when_client_gone())
    await (await world.open()).when_messages(1)


@pytest_twisted.ensureDeferred
async def test_connections_are_dropped_on_demand_and_in_turn(world: World) -> None:
    await world.init()
    client = await world.open()
    world.node.drop_connections()
    assert await soon(client.closed) == (None, None)
    world.settings.drop_every_seconds = 0.2
    client = await world.open()
    assert await soon(client.closed) == (None, None)
    world.settings.drop_every_seconds = None
    client = await world.open()
    world.node.close_connections(1011, "why not")
    assert await soon(client.closed) == (1011, "why not")


@pytest.mark.parametrize("refusal", [404, 403, 500, "junk", "silence"])
@pytest_twisted.ensureDeferred
async def test_upgrades_are_refused(world: World, refusal: Any) -> None:
    await world.init()
    if refusal == 404:
        world.settings.websocket = False
    else:
        world.settings.refuse_upgrade = refusal
    client = world.connect()
    await soon(world.ledger.when(lambda: len(world.ledger.upgrades) == 1))
    if refusal == "silence":
        await finished(0.2)
        assert not client.closed.called
        client.dropConnection(abort=True)
    await soon(client.closed)
    assert not client.opened.called
    if isinstance(refusal, int):
        assert f"[{refusal}]" in client.wasNotCleanReason
    await soon(world.ledger.when_delivered(1, via="http"))


@pytest_twisted.ensureDeferred
async def test_compression_is_accepted_when_it_is_offered(world: World) -> None:
    await world.init()
    client = world.connect(
        perMessageCompressionOffers=[PerMessageDeflateOffer()],
        perMessageCompressionAccept=PerMessageDeflateResponseAccept,
    )
    await soon(client.opened)
    assert client.websocket_extensions_in_use
    await client.when_messages(1)
    await soon(world.ledger.when_delivered(1, via="websocket"))


@pytest_twisted.ensureDeferred
async def test_what_the_client_said_is_kept(world: World) -> None:
    await world.init()
    client = await world.open()
    client.sendPing(b"p")
    await client.when(lambda: bool(client.pongs))
    client.sendClose(1000, "done")
    await soon(client.closed)
    await soon(world.node.when_client_gone())
    (connection,) = world.ledger.connections
    assert (connection.close_code, connection.close_reason, connection.pings) == (1000, "done", 1)
    assert connection.closed_at is not None
