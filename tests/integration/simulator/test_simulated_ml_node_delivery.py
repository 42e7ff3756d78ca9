"""How the simulated ML node delivers, validates, and loses batches."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from dapi.simulator.ml_node.work import distance
from tests.integration.simulated_node import World, finished, reactor, soon


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


@pytest_twisted.ensureDeferred
async def test_without_a_client_batches_go_by_http(world: World) -> None:
    await world.init()
    await soon(world.ledger.when_delivered(2))
    path, body = world.callbacks.calls[0]
    assert path == "/v1/poc-batches/generated"
    entry = world.ledger.batches[0]
    assert json.loads(body) == entry.batch
    assert b'": ' in body
    assert b", " in body
    assert entry.delivered_via == "http"
    assert [attempt.via for attempt in entry.attempts] == ["http"]
    batch = entry.batch
    assert len(batch["nonces"]) == len(batch["dist"]) == 5
    assert batch["node_id"] == 1
    assert all(nonce % 3 == 1 for nonce in batch["nonces"])
    assert batch["dist"] == [distance("02aa", "ABCDEF", 1000, nonce) for nonce in batch["nonces"]]
    assert world.ledger.batches[1].batch["nonces"][0] > batch["nonces"][-1]


@pytest_twisted.ensureDeferred
async def test_with_a_client_batches_go_over_the_websocket_alone(world: World) -> None:
    await world.init()
    client = await world.open()
    await soon(world.node.when_client_connected())
    await soon(world.ledger.when_delivered(3, via="websocket"))
    payload, is_binary = client.messages[0]
    message = json.loads(payload)
    assert not is_binary
    assert set(message) == {"type", "batch", "id"}
    assert message["type"] == "generated"
    assert b" " not in payload
    entry = world.ledger.delivered(via="websocket")[0]
    assert message["batch"] == entry.batch
    assert entry.attempts[-1].outcome == "acknowledged"
    assert entry.attempts[-1].ack_connection == entry.attempts[-1].connection == 1
    assert len({client.message(index)["id"] for index in range(3)}) == 3


@pytest_twisted.ensureDeferred
async def test_without_an_ack_the_batch_goes_both_ways(world: World) -> None:
    client = world.connect(acks=False)
    await soon(client.closed)
    await world.init()
    client = await world.open(acks=False)
    await client.when_messages(1)
    await soon(world.ledger.when(lambda: world.ledger.counts["doubled"] >= 1))
    entry = next(entry for entry in world.ledger.batches if entry.is_doubled)
    websocket, http = entry.attempts
    assert (websocket.outcome, http.outcome) == ("no ack", "accepted")
    assert http.started_at - websocket.started_at >= world.settings.ack_wait_seconds
    assert json.loads(world.callbacks.calls[-1][1]) in [client.message(i)["batch"] for i in range(len(client.messages))]
    client.ack(0)
    await soon(world.ledger.when(lambda: bool(world.ledger.stray_acks)))
    assert websocket.late_ack


@pytest_twisted.ensureDeferred
async def test_a_refused_batch_is_tried_again_with_a_new_id(world: World) -> None:
    world.settings.batches_per_walk = 0
    world.callbacks.answer = 503
    await world.init()
    client = await world.open(acks=False)
    world.settings.batches_per_walk = 1
    await soon(world.ledger.when(lambda: bool(world.ledger.batches)))
    world.settings.batches_per_walk = 0
    await client.when_messages(2)
    first, second = client.message(0), client.message(1)
    assert first["batch"] == second["batch"]
    assert first["id"] != second["id"]
    world.callbacks.answer = 204
    await soon(world.ledger.when_delivered(1))
    statuses = [attempt.status for attempt in world.ledger.batches[0].attempts if attempt.via == "http"]
    assert statuses[0] == 503
    assert statuses[-1] == 204


@pytest_twisted.ensureDeferred
async def test_an_unreachable_callback_keeps_the_batch(world: World) -> None:
    await world.listening.stopListening()
    await world.init()
    await soon(world.ledger.when(lambda: any(len(entry.attempts) > 1 for entry in world.ledger.batches)))
    assert world.ledger.batches[0].attempts[0].outcome == "failed"
    world.listen_again()
    await soon(world.ledger.when_delivered(2))


@pytest_twisted.ensureDeferred
async def test_a_callback_that_never_answers_stalls_the_sender_until_it_is_stopped(world: World) -> None:
    world.callbacks.answer = None
    await world.init()
    await world.callbacks.when_called(1)
    await finished(0.5)
    assert len(world.callbacks.calls) == 1
    began = reactor.seconds()
    await world.call("POST", "/api/v1/stop")
    assert reactor.seconds() - began >= world.settings.hung_stop_seconds
    assert world.ledger.batches[0].lost
    assert world.ledger.batches[0].attempts[0].outcome == "cut off"
    world.callbacks.answer = 200
    await world.init()
    await soon(world.ledger.when_delivered(1))


@pytest_twisted.ensureDeferred
async def test_acks_that_are_lost(world: World) -> None:
    world.settings.double_every = 2
    await world.init()
    await world.open()
    await soon(world.ledger.when_offered(4))
    await soon(world.ledger.when(lambda: world.ledger.counts["doubled"] >= 1))
    outcomes = [attempt.outcome for entry in world.ledger.batches for attempt in entry.attempts if attempt.message_id]
    assert outcomes[:3] == ["acknowledged", "ack lost", "acknowledged"]
    world.settings.ignore_acks = True
    await soon(world.ledger.when(lambda: world.ledger.counts["doubled"] >= 3))


@pytest_twisted.ensureDeferred
async def test_binary_frames_and_junk_on_demand(world: World) -> None:
    world.settings.binary_frames = True
    await world.init()
    client = await world.open()
    await client.when_messages(1)
    assert client.messages[0][1]
    world.settings.batches_per_walk = 0
    world.node.send_junk(b"junk")
    await client.when(lambda: any(payload == b"junk" for payload, _ in client.messages))


@pytest_twisted.ensureDeferred
async def test_two_nodes_that_are_asked_the_same_generate_the_same(world: World) -> None:
    await world.init()
    await soon(world.ledger.when_delivered(2))
    other = World()
    await other.init()
    await soon(other.ledger.when_delivered(2))
    assert [entry.batch for entry in list(world.ledger.batches)[:2]] == [
        entry.batch for entry in list(other.ledger.batches)[:2]
    ]
    await other.end()


@pytest_twisted.ensureDeferred
async def test_validation_delivers_a_verdict(world: World) -> None:
    await world.init("validate", node_id=2)
    nonces = list(range(10))
    claim = {
        "public_key": "03bb",
        "block_hash": "ABCDEF",
        "block_height": 1000,
        "nonces": nonces,
        "dist": [distance("03bb", "ABCDEF", 1000, nonce) % 1.4 for nonce in nonces],
        "node_id": 0,
    }
    await world.call("POST", "/api/v1/pow/validate", claim)
    await soon(world.ledger.when_delivered(1, kind="validated"))
    path, body = world.callbacks.calls[0]
    verdict = json.loads(body)
    assert path == "/v1/poc-batches/validated"
    assert (verdict["public_key"], verdict["node_id"]) == ("03bb", 0)
    assert verdict["received_dist"] == claim["dist"]
    assert verdict["dist"] == [distance("03bb", "ABCDEF", 1000, nonce) for nonce in nonces]
    assert verdict["n_invalid"] == sum(found > verdict["r_target"] for found in verdict["dist"])
    assert verdict["fraud_detected"] is (verdict["probability_honest"] < 1e-7)
    await world.open()
    await world.call("POST", "/api/v1/pow/validate", claim)
    await soon(world.ledger.when_delivered(1, kind="validated", via="websocket"))


@pytest_twisted.ensureDeferred
async def test_a_distance_beyond_the_target_kills_the_sender(world: World) -> None:
    await world.init("validate")
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1], "dist": [1.41], "node_id": 0}
    assert (await world.call("POST", "/api/v1/pow/validate", batch))[0] == 200
    await world.init()
    await finished(0.4)
    assert not world.callbacks.calls
    assert (await world.call("GET", "/api/v1/pow/status"))[1]["status"] == "GENERATING"
    await world.call("POST", "/api/v1/stop")
    await world.init()
    await soon(world.ledger.when_delivered(1))


@pytest_twisted.ensureDeferred
async def test_nan_goes_over_the_websocket_only(world: World) -> None:
    world.settings.nan_in_validated = True
    await world.init("validate")
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1, 2], "dist": [1, 0.5], "node_id": 0}
    await world.call("POST", "/api/v1/pow/validate", batch)
    await soon(world.ledger.when(lambda: any(len(entry.attempts) > 1 for entry in world.ledger.batches)))
    assert not world.callbacks.calls
    client = await world.open()
    await soon(world.ledger.when_delivered(1, via="websocket"))
    assert b"NaN" in client.messages[0][0]
    assert math.isnan(client.message(0)["batch"]["dist"][0])


@pytest_twisted.ensureDeferred
async def test_a_switch_with_an_equal_request_keeps_batches_until_the_phase_comes_back(world: World) -> None:
    world.callbacks.answer = 500
    await world.init()
    await soon(world.ledger.when(lambda: any(entry.attempts for entry in world.ledger.batches)))
    await world.init("validate")
    await soon(world.ledger.when(lambda: all(a.outcome for entry in world.ledger.batches for a in entry.attempts)))
    world.callbacks.answer = 200
    calls = len(world.callbacks.calls)
    await finished(0.4)
    assert len(world.callbacks.calls) == calls
    assert not any(entry.lost for entry in world.ledger.batches)
    await world.init()
    await soon(world.ledger.when_delivered(1))
    assert world.ledger.batches[0].delivered_via == "http"


@pytest.mark.parametrize("how", ["stop", "pow/stop", "init"])
@pytest_twisted.ensureDeferred
async def test_a_stop_and_a_different_init_lose_what_was_not_delivered(world: World, how: str) -> None:
    world.callbacks.answer = 500
    await world.init()
    await soon(world.ledger.when(lambda: any(entry.attempts for entry in world.ledger.batches)))
    await (world.init(block_height=1001) if how == "init" else world.call("POST", f"/api/v1/{how}"))
    assert world.ledger.batches[0].lost
    assert world.ledger.counts["lost"] >= 1
    first = world.ledger.batches[0].batch
    world.callbacks.answer = 200
    if how == "init":
        await soon(world.ledger.when_delivered(1))
        assert first not in [json.loads(body) for _, body in world.callbacks.calls[-1:]]
