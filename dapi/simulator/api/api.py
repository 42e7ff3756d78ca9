"""The simulated api container: what a host of a network with PoC v2 runs, with everything that can happen to it.

What becomes of it::

             start, or the end of a crash        a block after unsynced_seconds
    STOPPED ─────────────────────────────▶ UNSYNCED ────────────────────────▶ RUNNING
       ▲                                      │                                 │
       └──────────────────stop, crash─────────┴─────────────────────────────────┘
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from dapi.simulator.api.answers import (
    Generated,
    Refused,
    Validated,
    Vote,
    bind,
    check_key,
    check_vectors,
    model_of,
    route,
)
from dapi.simulator.api.artifacts import Artifacts
from dapi.simulator.api.http import CallbackResource, JsonResource
from dapi.simulator.api.settings import ApiSettings, Faults, Line
from dapi.simulator.api.stages import Stage
from dapi.simulator.ml_node.listener import Listener

_KEPT_STAGES = 10
_REMEMBERED_POSTS = 100_000
_REMEMBERED_VOTES = 100_000


class ApiState(enum.Enum):
    """What the container does now."""

    STOPPED = "stopped"
    UNSYNCED = "started, and has seen no block yet"
    RUNNING = "running"


class Post(NamedTuple):
    """A POST as it came: the raw request target, a hash of the body, its encoding, and the status of its answer."""

    target: bytes
    digest: bytes
    size: int
    status: int
    encoding: bytes = b""


class Commit(NamedTuple):
    """What the chain has of a stage and model: how many artifacts, and the height of the block that it is in."""

    height: int
    artifacts: int


class SimulatedApi(Service):
    """One host's api container on three ``ports`` of 127.0.0.1, which it keeps over crashes; 0 is any that is free.

    ``height`` is the latest block that it knows; a test moves it with ``see_block``. ``stage`` is the active stage,
    None in the inference phase; ``last_regular`` is the epoch's own, also while a confirmation PoC runs. An
    ``active_challenge`` wins over it, but while votes are taken, and ``epochs/latest`` does not tell of it. ``nodes``
    are the host's nodes: by number, the model that each runs. ``posts`` are the callbacks that came, ``commits`` what
    the chain has, by stage start and model. ``votes`` says how often each vote was handed over to be sent to the chain:
    that is on disk, and outlives a crash; a second one of a kind does nothing on the chain, but costs a message.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: ApiSettings | None = None,
        *,
        nodes: Mapping[int, str],
        ports: Sequence[int] = (0, 0, 0),
    ) -> None:
        self.settings = settings or ApiSettings()
        self.faults = Faults()
        self.state = ApiState.STOPPED
        self.height = 1
        self.last_regular = Stage(1)
        self.stage = None
        self.active_challenge: Stage | None = None
        self.nodes = dict(nodes)
        self.statuses: dict[int, str] = {}
        self.failures: dict[int, str] = {}
        self.posts: deque[Post] = deque(maxlen=_REMEMBERED_POSTS)
        self.commits: dict[tuple[int, str], list[Commit]] = {}
        self._sent: dict[tuple[int, str], int] = {}
        self.votes: Counter[Vote] = Counter()
        self.artifacts: dict[tuple[int, str], Artifacts] = {}
        self.lost = 0
        self.started_at = 0.0
        self._reactor = reactor
        self._flushing = LoopingCall(self.flush)
        self._flushing.clock = reactor
        self._callbacks = CallbackResource(
            reactor, self, lambda: self.started_at, has_metrics=self.settings.has_metrics
        )
        routes = {b"/v1/epochs/latest": self._epochs, b"/v1/poc/artifacts/state": self._artifacts_state}
        public = JsonResource(self.faults, routes)
        admin = JsonResource(self.faults, {b"/admin/v1/nodes": self._nodes})
        resources = (self._callbacks, public, admin)
        self._listeners = [Listener(reactor, *each) for each in zip(ports, resources, strict=True)]

    @property
    def stage(self) -> Stage | None:
        """The active stage."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage | None) -> None:
        self._stage = stage
        if stage is not None and not stage.is_confirmation:
            self.last_regular = stage

    @property
    def callback_url(self) -> str:
        """Where callbacks are taken; kept over crashes."""
        return f"http://127.0.0.1:{self._listeners[0].port}"

    @property
    def public_url(self) -> str:
        """Where state and epochs are told."""
        return f"http://127.0.0.1:{self._listeners[1].port}"

    @property
    def admin_url(self) -> str:
        """Where the nodes are told."""
        return f"http://127.0.0.1:{self._listeners[2].port}"

    def startService(self) -> None:
        """Open the ports; 503 until a block was seen."""
        super().startService()  # type: ignore[no-untyped-call]
        for listener in self._listeners:
            listener.listen()
        self.state = ApiState.UNSYNCED
        self.started_at = time.time()
        self._syncing = deferLater(self._reactor, self.settings.unsynced_seconds, self._sync)
        self._syncing.addErrback(lambda _: None)
        self._flushing.start(self.settings.flush_seconds, now=False).addErrback(
            lambda failure: self.log.failure("the simulated api container flushes no more", failure)
        )

    def stopService(self) -> Deferred[None]:
        """Close the ports; what is not flushed is lost, at a clean stop, too. Fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.state = ApiState.STOPPED
        self.lost += sum(artifacts.crash() for artifacts in self.artifacts.values())
        self._syncing.cancel()
        if self._flushing.running:
            self._flushing.stop()
        self._callbacks.cancel_all()
        closing = [closed for each in self._listeners for closed in (each.close(), each.abort())]
        return gatherResults(closing).addCallback(lambda _: None)

    async def crash(self, down_seconds: float = 0.0) -> None:
        """Be killed, and start again ``down_seconds`` later."""
        await self.stopService()
        await deferLater(self._reactor, down_seconds)
        self.startService()

    def see_block(self, height: int) -> None:
        """Know the block at a height from now on."""
        self.height = height

    def flush(self) -> None:
        """Bring what is in memory to disk, and commit what is on disk if that is more than before."""
        if self.settings.commits_first:
            self._commit()
        if self.faults.flush_fails:
            return
        for artifacts in self.artifacts.values():
            artifacts.flush()
        if not self.settings.commits_first:
            self._commit()

    def damage(self, model: str, kept: int) -> None:
        """Cut what is on disk of the active stage."""
        if self.stage is not None:
            self.artifacts[self.stage.start, model].damage(kept)

    def committed(self, start: int, model: str) -> int:
        """Return the count of the last commit of a stage and model, 0 without one."""
        commits = self.commits.get((start, model))
        return commits[-1].artifacts if commits else 0

    def take_callback(self, raw_path: bytes, content_type: str | None, body: bytes) -> None:
        """Do what a POST asks for; raises Refused."""
        callback = route(raw_path)
        if callback.kind == "generated":
            generated = bind(content_type, body, Generated)
            self._take_generated(model_of(callback.escaped_model), generated)
        else:
            validated = bind(content_type, body, Validated)
            self._take_validated(model_of(callback.escaped_model), validated)

    def record_post(self, raw_path: bytes, body: bytes, status: int, headers: Mapping[bytes, Sequence[bytes]]) -> None:
        """Remember how a POST was answered."""
        encoding = headers.get(b"Content-Encoding", [b""])[0]
        self.posts.append(Post(raw_path, hashlib.sha256(body).digest(), len(body), status, encoding))

    def _active_stage(self) -> Stage | None:
        is_voting = self.stage is not None and self.stage.takes_validated(self.height)
        return self.stage if is_voting or self.active_challenge is None else self.active_challenge

    def _take_generated(self, model: str, body: Generated) -> None:
        line, stage = self.settings.line, self._active_stage()
        if self.state is not ApiState.RUNNING or stage is None or not stage.takes_generated(self.height):
            raise Refused(503, "not in PoC generate phase")
        if line is not Line.B and body.block_height != stage.start:
            raise Refused(400, "block_height is not the active PoC stage")
        if body.node_id not in self.nodes:
            raise Refused(400, "unknown node_num")
        check_vectors(body.artifacts or [], takes_steps=line is Line.D)
        nonces = [artifact.nonce for artifact in body.artifacts or []]
        key = (body.block_height, model)
        if self.faults.store_fails:
            if line is not Line.B:
                # Some of the body may be in.
                self.artifacts.setdefault(key, Artifacts()).add(nonces[: len(nonces) // 2], body.node_id)
                raise Refused(503, "failed to store artifacts")
            return
        self.artifacts.setdefault(key, Artifacts()).add(nonces, body.node_id)
        starts = sorted({start for start, _ in self.artifacts})
        for key in [key for key in self.artifacts if key[0] in starts[:-_KEPT_STAGES]]:
            del self.artifacts[key]

    def _take_validated(self, model: str, body: Validated) -> None:
        is_open = self.stage is not None and self.stage.takes_validated(self.height)
        if self.state is not ApiState.RUNNING or not is_open:
            raise Refused(503, "not in PoC validate phase")
        if self.settings.line is Line.D and not body.is_complete:
            return
        check_key(body.public_key)
        if self.faults.hand_over_fails:
            raise Refused(500, "failed to hand the vote over")
        self.votes[Vote(model, body)] += 1
        if len(self.votes) > _REMEMBERED_VOTES:
            del self.votes[next(iter(self.votes))]

    def _sync(self) -> None:
        self.state = ApiState.RUNNING

    def _commit(self) -> None:
        """Send what has risen; the chain may refuse it, which the container takes for sent until the count rises."""
        stage, block = self._active_stage(), self.height + 1
        if stage is None or not stage.generation_start < block <= stage.end:
            return
        for key, artifacts in self.artifacts.items():
            if key[0] != stage.start or artifacts.count <= self._sent.get(key, 0):
                continue
            self._sent[key] = artifacts.count
            commits = self.commits.setdefault(key, [])
            is_second = bool(commits) and commits[-1].height == block and not self.settings.many_commits_a_block
            if not self.faults.commits_refused and not is_second:
                commits.append(Commit(block, artifacts.count))

    def _artifacts_state(self, args: dict[str, str]) -> Any:
        if not args.get("height"):
            raise Refused(400, "height query parameter required")
        if re.fullmatch(r"[+-]?[0-9]{1,18}", args["height"], re.ASCII) is None:
            raise Refused(400, "invalid height parameter")
        height = int(args["height"])
        model = args.get("model_id")
        if not model:
            raise Refused(400, "model_id query parameter required")
        artifacts = self.artifacts.get((height, model))
        stage = self._active_stage()
        is_active = stage is not None and stage.start == height and self.state is ApiState.RUNNING
        if artifacts is None or not (is_active or self.settings.line is Line.B):
            raise Refused(404, "not found for height (may be pruned or not yet created)")
        # A stand-in that changes with the count: the real one takes no time either, and nobody here reads it.
        root = base64.b64encode(hashlib.sha256(b"%d" % artifacts.count).digest()).decode()
        told = {"poc_stage_start_block_height": height, "model_id": model, "count": artifacts.count}
        return {**told, "root_hash": root if artifacts.count else ""}

    def _epochs(self, _args: dict[str, str]) -> Any:
        """Return the epochs; fields that are zero are left out."""
        if self.faults.chain_down:
            raise Refused(500, "failed to query the chain")
        stage = self.last_regular
        durations = {name: value for name, value in msgspec.structs.asdict(stage.durations).items() if value}
        deeper = {name: str(value) for name, value in durations.items()}
        told: dict[str, Any] = {
            "block_height": self.height,
            "phase": str(stage.phase(self.height)),
            "epoch_params": {"epoch_params": deeper} if self.settings.nests_params else durations,
            "latest_epoch": {"index": 1, "poc_start_block_height": stage.start},
            "epoch_stages": {
                "poc_start": stage.start,
                "poc_generation_end": stage.start + stage.durations.poc_stage_duration,
                "poc_validation_start": stage.validation_start,
                "poc_validation_end": stage.validation_end,
                "poc_exchange_window": {"start": stage.start + 1, "end": stage.end},
                "next_poc_start": stage.start + stage.durations.epoch_length,
            },
        }
        if (event := self.stage) is not None and (phase := event.event_phase(self.height)) is not None:
            told["is_confirmation_poc_active"] = True
            told["active_confirmation_poc_event"] = {
                "trigger_height": event.start,
                "generation_start_height": event.generation_start,
                "phase": int(phase),
            }
        return told

    def _nodes(self, _args: dict[str, str]) -> Any:
        return [
            {
                "node": {"id": f"node{number}", "node_num": number, "host": "127.0.0.1", "models": {model: {}}},
                "state": {
                    "current_status": "INFERENCE",
                    "poc_current_status": self.statuses.get(number, "IDLE"),
                    "failure_reason": self.failures.get(number, ""),
                },
            }
            for number, model in sorted(self.nodes.items())
        ]
