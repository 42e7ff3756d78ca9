"""What the calls of a simulated ML node do. One service runs at a time: PoW, inference or training."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dapi.simulator.ml_node.http import Handler, RefusedError
from dapi.simulator.ml_node.pow_service import PowService
from dapi.simulator.ml_node.run import Phase, PowRun
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import InitRequest, checked, proof_batch
from dapi.timing.waiters import Waiters

NOT_LOADED = {"status": "NOT_LOADED"}
"""The status of a PoW that does not run."""


class Inference:
    """The inference service; ``status`` is not_started, in_progress, completed, cancelled or failed.

    ``arguments`` are those that it was begun with last.
    """

    def __init__(self, clock: IReactorTime, settings: MLNodeSettings) -> None:
        self.status = "not_started"
        self.arguments: list[str] = []
        self._clock = clock
        self._settings = settings
        self._started_at = 0.0
        self._startup: IDelayedCall | None = None
        self._startup_waiters: Waiters[None] = Waiters()

    @property
    def is_active(self) -> bool:
        """Tell whether it starts or serves."""
        return self.status in ("in_progress", "completed")

    def begin(self, arguments: list[str]) -> None:
        """Start; after ``inference_up_seconds`` it serves, or has failed where the settings say so."""
        self.status, self.arguments = "in_progress", arguments
        self._started_at = self._clock.seconds()
        failed = self._settings.inference_fails
        self._startup = self._clock.callLater(
            self._settings.inference_up_seconds, self._end_startup, "failed" if failed else "completed"
        )

    def end(self) -> None:
        """Stop serving, or starting."""
        if self._startup is not None:
            self._startup.cancel()
            self._end_startup("cancelled")
        elif self.status == "completed":
            self.status = "not_started"

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that fires when the start has ended, with success or without."""
        return self._startup_waiters.wait()

    def as_body(self) -> dict[str, Any]:
        """Return the answer of the status call."""
        return {
            "status": self.status,
            "is_starting": self.status == "in_progress",
            "is_running": self.status == "completed",
            "elapsed_seconds": self._clock.seconds() - self._started_at if self.is_active else None,
            "error": "told to fail" if self.status == "failed" else None,
        }

    def _end_startup(self, status: str) -> None:
        self.status = status
        self._startup = None
        self._startup_waiters.fire(None)


class NodeAPI:
    """The services of one node, and the calls that start and stop them."""

    def __init__(self, pow_service: PowService, inference: Inference) -> None:
        self.is_training = False
        self._pow = pow_service
        self._inference = inference

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return the handler of each method and path."""
        pow_calls: dict[tuple[str, str], Handler] = {
            ("POST", "init/generate"): lambda body: self._init(body, "generate"),
            ("POST", "init/validate"): lambda body: self._init(body, "validate"),
            ("POST", "phase/generate"): lambda _: self._switch("generate"),
            ("POST", "phase/validate"): lambda _: self._switch("validate"),
            ("POST", "validate"): self._validate,
            ("GET", "status"): self._get_pow_status,
            ("POST", "stop"): self._stop_pow,
        }
        inference_calls: dict[tuple[str, str], Handler] = {
            ("POST", "up"): self._inference_up,
            ("POST", "up/async"): self._inference_up_async,
            ("GET", "up/status"): self._get_inference_status,
            ("POST", "down"): self._inference_down,
        }
        return {
            ("GET", "/api/v1/state"): self.get_state,
            ("POST", "/api/v1/stop"): self.stop,
            ("GET", "/health"): self._get_health,
            **{(method, f"/api/v1/pow/{path}"): self._only("POW", each) for (method, path), each in pow_calls.items()},
            **{
                (method, f"/api/v1/inference/{path}"): self._only("INFERENCE", each)
                for (method, path), each in inference_calls.items()
            },
        }

    @property
    def state(self) -> str:
        """POW, INFERENCE, TRAIN or STOPPED."""
        if self._pow.run is not None:
            return "POW"
        if self._inference.is_active:
            return "INFERENCE"
        return "TRAIN" if self.is_training else "STOPPED"

    async def get_state(self, _: Any) -> dict[str, str]:
        """Answer which service runs."""
        return {"state": self.state}

    async def stop(self, _: Any) -> dict[str, str]:
        """Stop whatever runs."""
        self._inference.end()
        self.is_training = False
        await self._pow.stop()
        return {"status": "OK"}

    def _only(self, service: str, handler: Handler) -> Handler:
        """Refuse a call of one service while another one runs."""

        async def handle(body: Any) -> Any:
            if self.state not in (service, "STOPPED"):
                raise RefusedError(409, f"{self.state} is running")
            return await handler(body)

        return handle

    def _running(self) -> PowRun:
        if self._pow.run is None:
            raise RefusedError(400, "PoW is not running")
        return self._pow.run

    async def _init(self, body: Any, phase: Phase) -> dict[str, Any]:
        request = InitRequest.from_body(body)
        if phase == "generate" and -1 in (request.node_num, request.node_count):
            raise RefusedError(400, "node_id and node_count are needed to generate")
        run = await self._pow.init(request, phase)
        return {"status": "OK", "pow_status": run.status}

    async def _switch(self, phase: Phase) -> dict[str, Any]:
        if phase == "generate" and not self._pow.had_init:
            # The node reads the numbers of an init request that is not there.
            raise RefusedError(500, "Internal Server Error")
        run = self._running()
        run.phase = phase
        return {"status": "OK", "pow_status": run.status}

    async def _validate(self, body: Any) -> None:
        self._running().to_validate.append(proof_batch(body))

    async def _get_pow_status(self, _: Any) -> dict[str, Any]:
        return NOT_LOADED if self._pow.run is None else self._pow.run.status

    async def _stop_pow(self, _: Any) -> dict[str, Any]:
        if self._pow.run is None:
            return {"status": "OK", "pow_status": "PoW is not running"}
        await self._pow.stop()
        return {"status": "OK", "pow_status": NOT_LOADED}

    async def _inference_up(self, body: Any) -> dict[str, str]:
        self._begin_inference(body)
        await self._inference.when_started()
        if self._inference.status != "completed":
            raise RefusedError(500, f"inference: {self._inference.status}")
        return {"status": "OK"}

    async def _inference_up_async(self, body: Any) -> dict[str, str]:
        self._begin_inference(body)
        return {"status": "starting"}

    def _begin_inference(self, body: Any) -> None:
        checked(body, {"model": "text", "dtype": "text", "additional_args": "list of text"})
        if self._inference.is_active:
            raise RefusedError(409, "inference is starting or running")
        self._inference.begin(body["additional_args"])

    async def _get_inference_status(self, _: Any) -> dict[str, Any]:
        return self._inference.as_body()

    async def _inference_down(self, _: Any) -> dict[str, str]:
        self._inference.end()
        return {"status": "OK"}

    async def _get_health(self, _: Any) -> dict[str, str]:
        if self._inference.status != "completed":
            raise RefusedError(503, "inference is not up")
        return {"status": "OK"}
