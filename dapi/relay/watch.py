"""Watches a host's PoC v2 from beside: what of each stage is stored and committed. Nothing passes through it.

It asks the api container and the chain each 2 s, changes nothing there, and needs no key.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError
from dapi.relay.api_answers import StageWindow
from dapi.relay.api_client import ApiClient, ApiUnavailableError
from dapi.relay.commits import committed, has_weights
from dapi.relay.knowledge import Knowledge
from dapi.relay.stage_watch import Seen, StageWatch
from dapi.timing.loop import LoopService
from dapi.timing.together import together

_LOOK_SECONDS = 2.0
_NODES_EACH = 3
_REMEMBERED = 40
_GENERATING = "GENERATING"


class Watch(LoopService):
    """``rpc`` and ``participant`` (an address) tell of commits; without them only the container is asked."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        client: ApiClient,
        *,
        rpc: ChainRpc | None,
        participant: str | None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        super().__init__(reactor)
        self.knowledge = Knowledge(reactor)
        self.stages: dict[tuple[int, str], StageWatch] = {}
        self._client = client
        self._rpc = rpc
        self._participant = participant
        self._look_seconds = look_seconds
        self._turns = 0

    def stopService(self) -> Deferred[None]:
        """Ask nothing more; fires when nothing is left of it."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop_ended: Deferred[None]) -> None:
        await loop_ended
        await self._client.close()
        if self._rpc is not None:
            await self._rpc.close()

    async def loop(self) -> None:
        """Look again and again."""
        while self.running:
            await self._turn()
            await deferLater(self._reactor, self._look_seconds)

    async def _turn(self) -> None:
        knowledge = self.knowledge
        questions: list[Callable[[], Coroutine[Any, Any, None]]] = [
            partial(self._ask, "epochs", self._client.epochs, knowledge.learn_epochs),
            partial(self._ask, "metrics", self._client.start_time, knowledge.learn_start_time),
        ]
        if self._turns % _NODES_EACH == 0:
            questions.append(partial(self._ask, "nodes", self._client.nodes, knowledge.learn_nodes))
        self._turns += 1
        await together(questions)
        epochs = knowledge.epochs
        if epochs is None or "epochs" in knowledge.problems:
            return
        stages = [stage for stage in epochs.stages if stage.start <= epochs.block_height < stage.validation_end]
        models = sorted(knowledge.models(knowledge.nodes or ()))
        looks = [partial(self._look, stage, model) for stage in stages for model in models]
        await together(looks)

    async def _ask(
        self, what: str, question: Callable[[], Coroutine[Any, Any, Any]], learn: Callable[[Any], object]
    ) -> None:
        try:
            learn(await question())
        except ApiUnavailableError as error:
            self.knowledge.problems[what] = str(error)
        else:
            self.knowledge.problems.pop(what, None)

    async def _look(self, stage: StageWindow, model: str) -> None:
        epochs, key = self.knowledge.epochs, (stage.height, model)
        if epochs is None:
            return
        stored: list[int | None] = [None]
        await self._ask("state", partial(self._client.count, stage.height, model), partial(stored.__setitem__, 0))
        count, weights = await self._ask_chain(stage, model)
        if key not in self.stages:
            self.stages[key] = StageWatch(stage, model, self.knowledge.restarts)
            for old in sorted(self.stages)[:-_REMEMBERED]:
                del self.stages[old]
        generating = [
            node for node in self.knowledge.nodes or () if model in node.models and node.status == _GENERATING
        ]
        now = self._reactor.seconds()
        self.stages[key].see(
            Seen(now, epochs.block_height, stored[0], count, weights, len(generating), self.knowledge.restarts)
        )

    async def _ask_chain(self, stage: StageWindow, model: str) -> tuple[int | None, bool | None]:
        if self._rpc is None or self._participant is None:
            return None, None
        try:
            count = await committed(self._rpc, stage.height, self._participant, model)
            weights = await has_weights(self._rpc, stage.height, self._participant, model)
        except ChainError as error:
            self.knowledge.problems["chain"] = str(error)
            return None, None
        self.knowledge.problems.pop("chain", None)
        return count, weights

    def status(self) -> dict[str, Any]:
        """Return what ``GET status`` shows of the watch: the latest stages first."""
        epochs = self.knowledge.epochs
        newest = max((height for height, _ in self.stages), default=0)
        return {
            "height": epochs.block_height if epochs is not None else None,
            "phase": epochs.phase if epochs is not None else None,
            "knows_commits": self._rpc is not None and self._participant is not None,
            "questions": dict(self.knowledge.problems),
            "troubles": [
                {"kind": str(kind), "model": model, "problem": text}
                for (height, model), each in sorted(self.stages.items())
                if height == newest
                for kind, text in each.troubles().items()
            ],
            "stages": [each.status() for _, each in sorted(self.stages.items(), reverse=True)],
            "loop_problem": self.loop_problem,
        }
