"""The WebSocket of the simulated ML node, and its traps."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept

from dapi.simulator.ml_node.run import RunState
from tests.integration.simulated_node import NodeTestBed, passed, reactor
from tests.integration.waiting import soon, until


async def nothing_is_under_way(bed: NodeTestBed) -> None:
    """Wait until nothing that was offered over a connection may still be on its way."""
    await bed.when(lambda: all(a.outcome for entry in bed.ledger.batches for a in entry.attempts))


@pytest_twisted.ensureDeferred
async def test_a_restart_leaves_the_open_connection_dead(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'One connection after the other')"""
    await bed.init()
    client = await bed.open()
    await soon(bed.ledger.when_delivered(1, via="websocket"))
    await bed.init(batch_size=99)
    seen = len(client.messages)
    await soon(bed.ledger.when_delivered(3, via="http"))
    client.sendPing(b"are you there")
    await client.when_pong(b"are you there")
    assert len(client.messages) == seen
    assert not client.closed.called
    # Closing first, and connecting then, brings it back.
    client.sendClose(1000)
    await soon(client.closed)
    await soon(bed.node.when_client_gone())
    client = await bed.open()
    await client.when_messages(1)


@pytest_twisted.ensureDeferred
async def test_a_restart_that_nobody_asked_for_does_the_same(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'One connection after the other')"""
    await bed.init()
    client = await bed.open()
    await client.when_messages(1)
    await soon(bed.node.restart_pow())
    by_http = bed.ledger.counts["http"]
    await bed.when(lambda: bed.ledger.counts["http"] > by_http + 1)
    assert not client.closed.called


@pytest_twisted.ensureDeferred
async def test_closing_the_old_connection_late_makes_the_new_one_useless(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'One connection after the other')"""
    await bed.init()
    old = await bed.open()
    await bed.init(batch_size=99)
    new = await bed.open()
    await new.when_messages(1)
    old.sendClose(1000)
    await soon(old.closed)
    await bed.when(lambda: bed.node.run is not None and not bed.node.run.client_connected)
    await nothing_is_under_way(bed)
    seen, by_http = len(new.messages), bed.ledger.counts["http"]
    await bed.when(lambda: bed.ledger.counts["http"] >= by_http + 3)
    assert len(new.messages) == seen
    assert not new.closed.called


@pytest_twisted.ensureDeferred
async def test_what_is_offered_while_a_connection_closes_goes_by_http(bed: NodeTestBed) -> None:
    await bed.init()
    client = await bed.open()
    await client.when_messages(1)
    await nothing_is_under_way(bed)
    client.answers_close = False
    bed.node.close_connections(1000)
    seen, by_http = len(client.messages), bed.ledger.counts["http"]
    await bed.when(lambda: bed.ledger.counts["http"] >= by_http + 2)
    assert len(client.messages) == seen


@pytest_twisted.ensureDeferred
async def test_refusals_come_after_the_upgrade(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    client = bed.connect()
    assert await soon(client.closed) == (1008, "PoW is not running")
    assert client.opened.called
    await bed.init()
    bed.settings.websocket_ready = False
    assert await soon(bed.connect().closed) == (1008, "WebSocket infrastructure not initialized")
    bed.settings.websocket_ready = True
    first = await bed.open()
    assert await soon(bed.connect().closed) == (1008, "Another client is already connected")
    # The refusal left the first one in its place.
    await first.when_messages(2)
    assert [connection.refused for connection in bed.ledger.connections][-1] == "Another client is already connected"


@pytest_twisted.ensureDeferred
async def test_stopping_leaves_the_connection_open_and_deaf_meanwhile(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'Restarts' and 'WebSocket')"""
    bed.settings.stop_seconds = (2.0, 2.0)
    await bed.init()
    client = await bed.open()
    await client.when_messages(1)
    stopping = soon(bed.http.post(bed.node.base_url + "/api/v1/stop"))
    await bed.when(lambda: bed.node.run is not None and bed.node.run.state is RunState.ENDING)
    began = reactor.seconds()
    client.sendPing(b"deaf")
    state = bed.call("GET", "/api/v1/state")
    await client.when_pong(b"deaf")
    assert reactor.seconds() - began >= 1
    assert await state == (200, {"state": "STOPPED"})
    response = await stopping
    await soon(response.content())
    assert not client.closed.called


@pytest_twisted.ensureDeferred
async def test_deaf_on_demand(bed: NodeTestBed) -> None:
    await bed.init()
    client = await bed.open()
    deaf = soon(bed.node.be_deaf_for(2))
    client.sendPing(b"x")
    late = bed.connect()
    await passed(0.15)
    assert not client.pongs
    assert not late.opened.called
    await deaf
    await client.when_pong(b"x")
    await soon(late.closed)


@pytest.mark.parametrize("payload", [b"no json", b"[]", b"\x00"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_ack_leaves_a_connection_that_is_open_and_unused(bed: NodeTestBed, payload: bytes) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    # Nothing is offered over it before it is left.
    bed.settings.batches_per_walk = 0
    await bed.init()
    bed.settings.ack_wait_seconds = 0.3
    zombie = await bed.open(acks=False)
    zombie.sendMessage(payload, isBinary=payload == b"\x00")
    await bed.when(lambda: bed.ledger.connections[0].left_at is not None)
    bed.settings.batches_per_walk = 1
    seen, by_http = len(zombie.messages), bed.ledger.counts["http"]
    await bed.when(lambda: bed.ledger.counts["http"] >= by_http + 2)
    zombie.sendPing(b"are you there")
    await zombie.when_pong(b"are you there")
    assert len(zombie.messages) == seen
    assert not zombie.closed.called
    # It is in nobody's way, and its end changes nothing.
    client = await bed.open()
    await client.when_messages(1)
    zombie.sendClose(1000)
    await soon(zombie.closed)
    seen = len(client.messages)
    await client.when_messages(seen + 2)


@pytest_twisted.ensureDeferred
async def test_the_node_pings_and_closes_a_silent_client_with_1011(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    bed.settings.ping_seconds = 0.1
    bed.settings.silence_seconds = 3
    await bed.init()
    client = await bed.open()
    await until(lambda: client.pings >= 3)
    client.answers_pings = False
    assert await soon(client.closed) == (1011, "keepalive ping timeout")
    assert bed.ledger.connections[0].left_at is None
    await (await bed.open()).when_messages(1)


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_even_close_is_cut(bed: NodeTestBed) -> None:
    bed.settings.ping_seconds = bed.settings.silence_seconds = bed.settings.close_seconds = 0.1
    await bed.init()
    client = await bed.open()
    client.set_reading(False)
    await soon(bed.node.when_client_gone())
    client.set_reading(True)
    await soon(client.closed)


@pytest_twisted.ensureDeferred
async def test_a_frame_that_cannot_be_sent_in_time_leaves_the_connection(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    bed.settings.send_seconds = 0.3
    bed.settings.ack_wait_seconds = 0.1
    # More than the buffers of both ends hold.
    bed.settings.nonces_per_batch = 300_000
    await bed.init()
    zombie = await bed.open(acks=False)
    zombie.set_reading(False)
    await bed.when(lambda: bed.ledger.connections[0].left_at is not None)
    assert not zombie.closed.called
    bed.settings.nonces_per_batch = 5
    await soon(bed.ledger.when_delivered(1, via="http"))
    client = await bed.open()
    await soon(bed.ledger.when_delivered(1, via="websocket"))
    assert client.messages


@pytest_twisted.ensureDeferred
async def test_messages_that_a_client_did_not_read_come_to_the_next_one(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    await bed.init()
    client = await bed.open()
    await client.when_messages(1)
    client.answers_close = False
    bed.node.close_connections(1000)
    await bed.when(lambda: bed.ledger.counts["doubled"] >= 1)
    entry = next(entry for entry in bed.ledger.batches if entry.is_doubled)
    client.dropConnection(abort=True)
    await soon(bed.node.when_client_gone())
    client = await bed.open()
    await client.when_messages(1)
    assert client.message(0)["batch"] == entry.batch
    assert entry.attempts[0].connection == 2


@pytest_twisted.ensureDeferred
async def test_connections_are_dropped_on_demand_and_in_turn(bed: NodeTestBed) -> None:
    await bed.init()
    client = await bed.open()
    bed.node.drop_connections()
    assert await soon(client.closed) == (None, None)
    bed.settings.drop_every_seconds = 0.2
    client = await bed.open()
    assert await soon(client.closed) == (None, None)
    bed.settings.drop_every_seconds = None
    client = await bed.open()
    bed.node.close_connections(1011, "why not")
    assert await soon(client.closed) == (1011, "why not")


@pytest.mark.parametrize("refusal", [404, 403, 500, "junk", "silence"])
@pytest_twisted.ensureDeferred
async def test_upgrades_are_refused(bed: NodeTestBed, refusal: Any) -> None:
    await bed.init()
    if refusal == 404:
        bed.settings.websocket = False
    else:
        bed.settings.refuse_upgrade = refusal
    client = bed.connect()
    await bed.when(lambda: len(bed.ledger.upgrades) == 1)
    if refusal == "silence":
        await passed(0.2)
        assert not client.closed.called
        client.dropConnection(abort=True)
    await soon(client.closed)
    assert not client.opened.called
    if isinstance(refusal, int):
        assert f"[{refusal}]" in client.wasNotCleanReason
    await soon(bed.ledger.when_delivered(1, via="http"))


@pytest_twisted.ensureDeferred
async def test_compression_is_accepted_when_it_is_offered(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    await bed.init()
    client = bed.connect(
        perMessageCompressionOffers=[PerMessageDeflateOffer()],
        perMessageCompressionAccept=PerMessageDeflateResponseAccept,
    )
    await soon(client.opened)
    assert client.websocket_extensions_in_use
    await client.when_messages(1)
    await soon(bed.ledger.when_delivered(1, via="websocket"))


@pytest_twisted.ensureDeferred
async def test_what_the_client_said_is_kept(bed: NodeTestBed) -> None:
    await bed.init()
    client = await bed.open()
    client.sendPing(b"p")
    await client.when_pong(b"p")
    client.sendClose(1000, "done")
    await soon(client.closed)
    await soon(bed.node.when_client_gone())
    (connection,) = bed.ledger.connections
    assert (connection.close_code, connection.close_reason, connection.pings) == (1000, "done", 1)
    assert connection.closed_at is not None
