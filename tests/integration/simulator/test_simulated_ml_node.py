"""The HTTP API of the simulated ML node, and its life; the other tests stand on it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseNeverReceived

from dapi.simulator.ml_node.run import RunState
from tests.integration.simulated_node import NodeTestBed, reactor
from tests.integration.waiting import soon


@pytest_twisted.ensureDeferred
async def test_the_state_follows_the_services(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "STOPPED"})
    assert await bed.call("GET", "/api/v1/pow/status") == (200, {"status": "NOT_LOADED"})
    await bed.init()
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "POW"})
    generating = {"status": "GENERATING", "is_model_initialized": True}
    assert await bed.call("GET", "/api/v1/pow/status") == (200, generating)
    assert await bed.call("POST", "/api/v1/stop") == (200, {"status": "OK"})
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "STOPPED"})
    bed.node.begin_training()
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "TRAIN"})
    assert (await bed.call("POST", "/api/v1/stop", content=b"null"))[0] == 200
    assert bed.node.state == "STOPPED"


@pytest_twisted.ensureDeferred
async def test_init_answers_with_the_phase_and_switches_when_equal(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API' and 'Restarts')"""
    status = {"status": "GENERATING", "is_model_initialized": True}
    assert await bed.init() == (200, {"status": "OK", "pow_status": status})
    run = bed.node.run
    status = {"status": "VALIDATING", "is_model_initialized": True}
    assert await bed.init("validate") == (200, {"status": "OK", "pow_status": status})
    assert bed.node.run is run
    await bed.init(batch_size=99)
    assert bed.node.run is not run


@pytest_twisted.ensureDeferred
async def test_it_answers_during_a_restart(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'Restarts')"""
    bed.settings.restart_seconds = (3.0, 3.0)
    bed.settings.init_seconds = 1.5
    await bed.init()
    restarted = Deferred.fromCoroutine(bed.init(block_height=1001))
    await bed.when(lambda: bed.node.run is not None and bed.node.run.state is RunState.ENDING)
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "POW"})
    assert (await bed.call("GET", "/api/v1/pow/status"))[1]["status"] == "IDLE"
    # The request of the PoW that is about to end.
    assert (await bed.init())[1]["pow_status"]["status"] == "GENERATING"
    assert not restarted.called
    await bed.when(lambda: bed.node.run is not None and bed.node.run.state is RunState.STARTING)
    assert (await bed.call("GET", "/api/v1/pow/status"))[1] == {"status": "LOADING", "is_model_initialized": False}
    assert (await soon(restarted))[0] == 200
    assert bed.node.run is not None
    assert bed.node.run.request.block_height == 1001


@pytest_twisted.ensureDeferred
async def test_the_model_is_loaded_after_the_answer_to_init(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'Restarts')"""
    bed.settings.load_seconds = 2
    _, answer = await bed.init()
    assert answer["pow_status"] == {"status": "GENERATING", "is_model_initialized": False}
    await soon(bed.ledger.when_delivered(1))
    assert (await bed.call("GET", "/api/v1/pow/status"))[1]["is_model_initialized"]


@pytest.mark.parametrize("field", ["node_id", "node_count"])
@pytest_twisted.ensureDeferred
async def test_generating_needs_the_numbers(bed: NodeTestBed, field: str) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    changes: dict[str, Any] = {field: -1}
    assert (await bed.init(**changes))[0] == 400
    assert bed.node.run is None
    assert (await bed.init("validate", **changes))[0] == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_height", "1000"),
        ("block_height", True),
        ("public_key", None),
        ("params", []),
        ("r_target", "1.4"),
        ("url", 1),
        ("node_id", 1.5),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_bad_field_is_named(bed: NodeTestBed, field: str, value: Any) -> None:
    status, answer = await bed.init(**{field: value})
    assert status == 422
    assert answer["detail"][0]["loc"] == ["body", field]


@pytest_twisted.ensureDeferred
async def test_bodies_that_are_none(bed: NodeTestBed) -> None:
    for content in (b"", b"null", b"{", b"[]", b"\xff"):
        assert (await bed.call("POST", "/api/v1/pow/init/generate", content=content))[0] == 422, content
    missing = bed.init_body()
    del missing["block_hash"]
    status, answer = await bed.call("POST", "/api/v1/pow/init/generate", missing)
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "block_hash"])


@pytest_twisted.ensureDeferred
async def test_unknown_routes_and_methods(bed: NodeTestBed) -> None:
    assert (await bed.call("GET", "/api/v1/nothing"))[0] == 404
    assert (await bed.call("GET", "/api/v1/stop"))[0] == 405
    assert (await bed.call("GET", "/api/v1/pow/ws"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_calls_that_need_a_running_pow(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1], "dist": [0.5], "node_id": 0}
    for path in ("phase/validate", "validate"):
        assert (await bed.call("POST", f"/api/v1/pow/{path}", batch))[0] == 400, path
    await bed.init()
    assert (await bed.call("POST", "/api/v1/pow/phase/validate"))[0] == 200
    assert bed.node.run is not None
    assert bed.node.run.phase == "validate"
    assert await bed.call("POST", "/api/v1/pow/validate", batch) == (200, None)
    status = {"status": "OK", "pow_status": {"status": "NOT_LOADED"}}
    assert await bed.call("POST", "/api/v1/pow/stop") == (200, status)


@pytest_twisted.ensureDeferred
async def test_generating_before_the_first_init_is_an_error_of_the_node(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    assert (await bed.call("POST", "/api/v1/pow/phase/generate"))[0] == 500
    await bed.init()
    await bed.call("POST", "/api/v1/stop")
    assert (await bed.call("POST", "/api/v1/pow/phase/generate"))[0] == 400


@pytest_twisted.ensureDeferred
async def test_stopping_an_idle_pow_answers_with_a_string(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    status, answer = await bed.call("POST", "/api/v1/pow/stop")
    assert status == 200
    assert isinstance(answer["pow_status"], str)


@pytest.mark.parametrize("distances", [[], [0.5, 0.5, 0.5]])
@pytest_twisted.ensureDeferred
async def test_lists_of_unequal_length_are_accepted(bed: NodeTestBed, distances: list[float]) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    batch = {"public_key": "03", "block_hash": "A", "block_height": 1, "nonces": [1, 2], "dist": distances}
    await bed.init("validate")
    assert await bed.call("POST", "/api/v1/pow/validate", batch | {"node_id": 0}) == (200, None)
    await soon(bed.ledger.when_delivered(1, kind="validated"))
    assert bed.ledger.batches[0].batch["received_dist"] == distances


@pytest_twisted.ensureDeferred
async def test_every_call_of_inference_conflicts_with_pow(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    model = {"model": "m", "dtype": "float16", "additional_args": []}
    await bed.init()
    for method, path in (("POST", "up"), ("POST", "up/async"), ("GET", "up/status"), ("POST", "down")):
        assert (await bed.call(method, f"/api/v1/inference/{path}", model))[0] == 409, path
    # The conflict is found before the fields of the body are looked at.
    assert (await bed.call("POST", "/api/v1/inference/up", {}))[0] == 409
    await bed.call("POST", "/api/v1/stop")
    assert (await bed.call("GET", "/api/v1/inference/up/status"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_one_service_at_a_time(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'HTTP API')"""
    model = {"model": "m", "dtype": "float16", "additional_args": ["--a"]}
    assert (await bed.call("GET", "/health"))[0] == 503
    assert await bed.call("POST", "/api/v1/inference/up", model) == (200, {"status": "OK"})
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "INFERENCE"})
    assert (await bed.call("GET", "/health"))[0] == 200
    assert (await bed.call("POST", "/api/v1/inference/up", model))[0] == 409
    assert (await bed.init())[0] == 409
    assert (await bed.call("GET", "/api/v1/pow/status"))[0] == 409
    for path in ("init/generate", "phase/generate", "validate", "stop"):
        assert (await bed.call("POST", f"/api/v1/pow/{path}"))[0] == 409, path
    await bed.call("POST", "/api/v1/stop")
    assert (await bed.call("POST", "/api/v1/inference/up", model | {"additional_args": "--a"}))[0] == 422


@pytest_twisted.ensureDeferred
async def test_inference_comes_up_slowly_fails_and_is_cancelled(bed: NodeTestBed) -> None:
    model = {"model": "m", "dtype": "float16", "additional_args": []}
    bed.settings.inference_up_seconds = 60
    assert await bed.call("POST", "/api/v1/inference/up/async", model) == (200, {"status": "starting"})
    _, status = await bed.call("GET", "/api/v1/inference/up/status")
    assert (status["status"], status["is_starting"], status["is_running"]) == ("in_progress", True, False)
    assert bed.node.state == "INFERENCE"
    await bed.call("POST", "/api/v1/stop")
    assert (await bed.call("GET", "/api/v1/inference/up/status"))[1]["status"] == "cancelled"
    bed.settings.inference_up_seconds = 0.1
    assert (await bed.call("POST", "/api/v1/inference/up", model))[0] == 200
    assert (await bed.call("POST", "/api/v1/inference/down"))[0] == 200
    bed.settings.inference_fails = True
    assert (await bed.call("POST", "/api/v1/inference/up", model))[0] == 500
    assert bed.node.state == "STOPPED"


@pytest_twisted.ensureDeferred
async def test_calls_told_to_fail_or_to_come_late(bed: NodeTestBed) -> None:
    bed.settings.http_failures["/api/v1/pow/init/generate"] = 500
    assert (await bed.init())[0] == 500
    assert bed.node.state == "STOPPED"
    bed.settings.http_failures.clear()
    bed.settings.http_delays["*"] = 0.3
    began = reactor.seconds()
    assert (await bed.init())[0] == 200
    assert reactor.seconds() - began >= 0.3
    assert [(call.path, call.status) for call in bed.ledger.calls] == [
        ("/api/v1/pow/init/generate", 500),
        ("/api/v1/pow/init/generate", 200),
    ]


@pytest_twisted.ensureDeferred
async def test_a_call_has_its_effect_though_its_client_is_gone(bed: NodeTestBed) -> None:
    bed.settings.http_delays["/api/v1/stop"] = 1.0
    await bed.init()
    stopping = bed.http.post(bed.node.base_url + "/api/v1/stop")
    await bed.when(lambda: bed.node.state == "STOPPED")
    stopping.cancel()
    with pytest.raises(ResponseNeverReceived):
        await stopping
    await soon(bed.ledger.when_called("/api/v1/stop"))


@pytest_twisted.ensureDeferred
async def test_all_routes_lie_below_the_prefix() -> None:
    """(docs/protocol/node.md, 'Addresses')"""
    bed = NodeTestBed(prefix="/v3.0.8/poc")
    assert (await bed.init())[0] == 200
    client = await bed.open()
    await client.when_messages(1)
    response = await soon(bed.http.get(f"http://127.0.0.1:{bed.node.port}/api/v1/state"))
    await response.content()
    assert response.code == 404
    await bed.end()


@pytest_twisted.ensureDeferred
async def test_a_shutdown_closes_with_1012(bed: NodeTestBed) -> None:
    """(docs/protocol/node.md, 'WebSocket')"""
    await bed.init()
    client = await bed.open()
    stopping = soon(bed.node.stopService())
    assert (await soon(client.closed))[0] == 1012
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_shutdown_ends_though_the_client_is_silent(bed: NodeTestBed) -> None:
    bed.settings.close_seconds = 0.2
    await bed.init()
    client = await bed.open()
    client.set_reading(False)
    await soon(bed.node.stopService())
    client.set_reading(True)
    await soon(client.closed)


@pytest_twisted.ensureDeferred
async def test_a_shutdown_in_the_middle_of_everything(bed: NodeTestBed) -> None:
    bed.callbacks.answer = None
    bed.settings.stop_seconds = (60, 60)
    bed.settings.hung_stop_seconds = 60
    bed.settings.http_delays["/api/v1/state"] = 60
    await bed.init()
    await bed.open(acks=False)
    await bed.callbacks.when_called(1)
    slow = [
        bed.http.get(bed.node.base_url + "/api/v1/state"),
        bed.http.post(bed.node.base_url + "/api/v1/stop"),
    ]
    for call in slow:
        call.addErrback(lambda _: None)
    await bed.when(lambda: bed.node.run is not None and bed.node.run.state is RunState.ENDING)
    await soon(bed.node.stopService())
    for call in slow:
        await soon(call)


@pytest_twisted.ensureDeferred
async def test_a_crash_closes_nothing_properly_and_the_port_can_be_had_again(bed: NodeTestBed) -> None:
    await bed.init()
    client = await bed.open()
    port = bed.node.port
    await soon(bed.node.crash())
    assert await soon(client.closed) == (None, None)
    assert bed.node.state == "STOPPED"
    bed.node.startService()
    assert bed.node.port == port
    assert await bed.call("GET", "/api/v1/state") == (200, {"state": "STOPPED"})


def test_it_imports_only_tools_of_dapi_and_no_reactor() -> None:
    program = (
        "import sys, dapi.simulator.ml_node.node\n"
        "ours = {name for name in sys.modules if name.startswith('dapi')}\n"
        "print(sorted(name for name in ours if not name.startswith(('dapi.simulator', 'dapi.timing'))))\n"
        "print('twisted.internet.reactor' in sys.modules)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["['dapi']", "False"]
