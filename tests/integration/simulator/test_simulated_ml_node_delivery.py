"""How the simulated ML node delivers, validates, and loses batches."""

from __future__ import annotations

import json
import math

import pytest
import pytest_twisted

from dapi.simulator.ml_node.work import distance
from tests.integration.simulated_node import NodeTestBed, passed, reactor
from tests.integration.waiting import soon, until


@pytest_twisted.ensureDeferred
async def test_without_a_client_batches_go_by_http(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers' and 'Batches')"""
    await bed.init()
    await soon(bed.ledger.when_delivered(2))
    path, body = bed.callbacks.calls[0]
    assert path == "/v1/poc-batches/generated"
    entry = bed.ledger.batches[0]
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
    assert bed.ledger.batches[1].batch["nonces"][0] > batch["nonces"][-1]


@pytest_twisted.ensureDeferred
async def test_with_a_client_batches_go_over_the_websocket_alone(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers')"""
    await bed.init()
    client = await bed.open()
    await soon(bed.node.when_client_connected())
    await soon(bed.ledger.when_delivered(3, via="websocket"))
    payload, is_binary = client.messages[0]
    message = json.loads(payload)
    assert not is_binary
    assert set(message) == {"type", "batch", "id"}
    assert message["type"] == "generated"
    assert b" " not in payload
    entry = bed.ledger.delivered(via="websocket")[0]
    assert message["batch"] == entry.batch
    assert entry.attempts[-1].outcome == "acknowledged"
    assert entry.attempts[-1].ack_connection == entry.attempts[-1].connection == 1
    assert len({client.message(index)["id"] for index in range(3)}) == 3


@pytest_twisted.ensureDeferred
async def test_without_an_ack_the_batch_goes_both_ways(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers')"""
    bed.settings.ack_wait_seconds = 0.3
    client = bed.connect(acks=False)
    await soon(client.closed)
    await bed.init()
    client = await bed.open(acks=False)
    await client.when_messages(1)
    await bed.when(lambda: bed.ledger.counts["doubled"] >= 1)
    entry = next(entry for entry in bed.ledger.batches if entry.is_doubled)
    websocket, http = entry.attempts
    assert (websocket.outcome, http.outcome) == ("no ack", "accepted")
    assert http.started_at - websocket.started_at >= bed.settings.ack_wait_seconds
    assert json.loads(bed.callbacks.calls[-1][1]) in [client.message(i)["batch"] for i in range(len(client.messages))]
    client.ack(0)
    await bed.when(lambda: bool(bed.ledger.stray_acks))
    assert websocket.late_ack


@pytest_twisted.ensureDeferred
async def test_a_refused_batch_is_tried_again_with_a_new_id(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers')"""
    bed.settings.batches_per_walk = 0
    bed.settings.ack_wait_seconds = 0.3
    bed.callbacks.answer = 503
    await bed.init()
    client = await bed.open(acks=False)
    bed.settings.batches_per_walk = 1
    await bed.when(lambda: bool(bed.ledger.batches))
    bed.settings.batches_per_walk = 0
    await client.when_messages(2)
    first, second = client.message(0), client.message(1)
    assert first["batch"] == second["batch"]
    assert first["id"] != second["id"]
    bed.callbacks.answer = 204
    await soon(bed.ledger.when_delivered(1))
    statuses = [attempt.status for attempt in bed.ledger.batches[0].attempts if attempt.via == "http"]
    assert statuses[0] == 503
    assert statuses[-1] == 204


@pytest_twisted.ensureDeferred
async def test_an_unreachable_callback_keeps_the_batch(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers')"""
    await bed.listening.stopListening()
    await bed.init()
    await bed.when(lambda: any(len(entry.attempts) > 1 for entry in bed.ledger.batches))
    assert bed.ledger.batches[0].attempts[0].outcome == "failed"
    bed.listen()
    await soon(bed.ledger.when_delivered(2))


@pytest_twisted.ensureDeferred
async def test_a_callback_that_never_answers_stalls_the_sender_until_it_is_stopped(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'How a node delivers')"""
    bed.callbacks.answer = None
    await bed.init()
    await bed.callbacks.when_called(1)
    await passed(0.5)
    assert len(bed.callbacks.calls) == 1
    began = reactor.seconds()
    await bed.call("POST", "/api/v1/stop")
    assert reactor.seconds() - began >= bed.settings.hung_stop_seconds
    assert bed.ledger.batches[0].lost
    assert bed.ledger.batches[0].attempts[0].outcome == "cut off"
    bed.callbacks.answer = 200
    await bed.init()
    await soon(bed.ledger.when_delivered(1))


@pytest_twisted.ensureDeferred
async def test_acks_that_are_lost(bed: NodeTestBed) -> None:
    bed.settings.double_every = 2
    await bed.init()
    await bed.open()
    await soon(bed.ledger.when_offered(4))
    await bed.when(lambda: bed.ledger.counts["doubled"] >= 1)
    outcomes = [attempt.outcome for entry in bed.ledger.batches for attempt in entry.attempts if attempt.message_id]
    assert outcomes[:3] == ["acknowledged", "ack lost", "acknowledged"]
    bed.settings.ignore_acks = True
    bed.settings.ack_wait_seconds = 0.3
    await bed.when(lambda: bed.ledger.counts["doubled"] >= 3)


@pytest_twisted.ensureDeferred
async def test_binary_frames_and_junk_on_demand(bed: NodeTestBed) -> None:
    bed.settings.binary_frames = True
    await bed.init()
    client = await bed.open()
    await client.when_messages(1)
    assert client.messages[0][1]
    bed.settings.batches_per_walk = 0
    bed.node.send_junk(b"junk")
    await until(lambda: any(payload == b"junk" for payload, _ in client.messages))


@pytest_twisted.ensureDeferred
async def test_two_nodes_that_are_asked_the_same_generate_the_same(bed: NodeTestBed) -> None:
    await bed.init()
    await soon(bed.ledger.when_delivered(2))
    other = NodeTestBed()
    await other.init()
    await soon(other.ledger.when_delivered(2))
    assert [entry.batch for entry in list(bed.ledger.batches)[:2]] == [
        entry.batch for entry in list(other.ledger.batches)[:2]
    ]
    await other.end()


@pytest_twisted.ensureDeferred
async def test_validation_delivers_a_verdict(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'Batches')"""
    await bed.init("validate", node_id=2)
    nonces = list(range(10))
    claim = {
        "public_key": "03bb",
        "block_hash": "ABCDEF",
        "block_height": 1000,
        "nonces": nonces,
        "dist": [distance("03bb", "ABCDEF", 1000, nonce) % 1.4 for nonce in nonces],
        "node_id": 0,
    }
    await bed.call("POST", "/api/v1/pow/validate", claim)
    await soon(bed.ledger.when_delivered(1, kind="validated"))
    path, body = bed.callbacks.calls[0]
    verdict = json.loads(body)
    assert path == "/v1/poc-batches/validated"
    assert (verdict["public_key"], verdict["node_id"]) == ("03bb", 0)
    assert verdict["received_dist"] == claim["dist"]
    assert verdict["dist"] == [distance("03bb", "ABCDEF", 1000, nonce) for nonce in nonces]
    assert verdict["n_invalid"] == sum(found > verdict["r_target"] for found in verdict["dist"])
    assert verdict["fraud_detected"] is (verdict["probability_honest"] < 1e-7)
    await bed.open()
    await bed.call("POST", "/api/v1/pow/validate", claim)
    await soon(bed.ledger.when_delivered(1, kind="validated", via="websocket"))


@pytest_twisted.ensureDeferred
async def test_a_distance_beyond_the_target_kills_the_sender(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'What a node loses')"""
    await bed.init("validate")
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1], "dist": [1.41], "node_id": 0}
    assert (await bed.call("POST", "/api/v1/pow/validate", batch))[0] == 200
    assert (await bed.call("POST", "/api/v1/pow/validate", batch | {"dist": [1.4]}))[0] == 200
    await passed(2 * bed.settings.walk_seconds)
    assert (await bed.call("GET", "/api/v1/pow/status"))[1]["status"] == "VALIDATING"
    # An equal init, and a good batch, change nothing.
    await bed.init()
    await passed(2 * bed.settings.walk_seconds)
    assert not bed.callbacks.calls
    assert (await bed.call("GET", "/api/v1/pow/status"))[1]["status"] == "GENERATING"
    await bed.call("POST", "/api/v1/stop")
    await bed.init()
    await soon(bed.ledger.when_delivered(1))


@pytest_twisted.ensureDeferred
async def test_nan_goes_over_the_websocket_only(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'What a node loses')"""
    bed.settings.nan_in_validated = True
    await bed.init("validate")
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1, 2], "dist": [1, 0.5], "node_id": 0}
    await bed.call("POST", "/api/v1/pow/validate", batch)
    await bed.when(lambda: any(len(entry.attempts) > 1 for entry in bed.ledger.batches))
    assert not bed.callbacks.calls
    client = await bed.open()
    await soon(bed.ledger.when_delivered(1, via="websocket"))
    assert b"NaN" in client.messages[0][0]
    assert math.isnan(client.message(0)["batch"]["dist"][0])


@pytest_twisted.ensureDeferred
async def test_a_switch_with_an_equal_request_keeps_batches_until_the_phase_comes_back(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'What a node loses')"""
    bed.callbacks.answer = 500
    await bed.init()
    await bed.when(lambda: any(entry.attempts for entry in bed.ledger.batches))
    await bed.init("validate")
    await bed.when(lambda: all(a.outcome for entry in bed.ledger.batches for a in entry.attempts))
    bed.callbacks.answer = 200
    calls = len(bed.callbacks.calls)
    await passed(0.4)
    assert len(bed.callbacks.calls) == calls
    assert not any(entry.lost for entry in bed.ledger.batches)
    await bed.init()
    await soon(bed.ledger.when_delivered(1))
    assert bed.ledger.batches[0].delivered_via == "http"


@pytest.mark.parametrize("how", ["stop", "pow/stop", "init"])
@pytest_twisted.ensureDeferred
async def test_a_stop_and_a_different_init_lose_what_was_not_delivered(bed: NodeTestBed, how: str) -> None:
    """(docs/protocol/node.md, 'What a node loses')"""
    bed.callbacks.answer = 500
    await bed.init()
    await bed.when(lambda: any(entry.attempts for entry in bed.ledger.batches))
    await (bed.init(block_height=1001) if how == "init" else bed.call("POST", f"/api/v1/{how}"))
    assert bed.ledger.batches[0].lost
    assert bed.ledger.counts["lost"] >= 1
    first = bed.ledger.batches[0].batch
    bed.callbacks.answer = 200
    if how == "init":
        await soon(bed.ledger.when_delivered(1))
        assert first not in [json.loads(body) for _, body in bed.callbacks.calls[-1:]]
