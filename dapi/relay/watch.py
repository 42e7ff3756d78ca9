"""Watches a host's PoC v2 from beside: what of each stage is stored, committed and voted on. Nothing passes through it.

It asks the api container and the chain each 2 s, changes nothing there, and needs no key. Beside a relay it shares what
that knows of the container. What it sees of a stage is kept in the database, for the ledger of ``GET epochs``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.database import Database
from dapi.errors import ChainError, StoreError
from dapi.relay import watched_stage
from dapi.relay.api_answers import StageKind, StageWindow
from dapi.relay.api_client import ApiClient, ApiUnavailableError
from dapi.relay.chain_questions import ChainQuestions, Votes
from dapi.relay.knowledge import GENERATING, Knowledge
from dapi.relay.stage_watch import Seen, StageWatch, Trouble
from dapi.relay.watched_stage import WatchedStage
from dapi.timing.loop import LoopService
from dapi.timing.together import together

_LOOK_SECONDS = 2.0
_NODES_EACH = 3
_CHALLENGE_EACH = 3
_VOTES_EACH = 8
_SAVE_EACH = 5
_REMEMBERED = 40
_MAX_NODES = 1000


class Watch(LoopService):
    """``chain`` tells of commits; without it only the container is asked.

    ``knowledge`` is that of a relay, which asks the container itself; without it the watch does. ``handed_on`` tells
    what the relay has delivered of a stage and model, by node id.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        client: ApiClient,
        database: Database,
        *,
        chain: ChainQuestions | None,
        knowledge: Knowledge | None = None,
        handed_on: Callable[[int, str], Mapping[str, int] | None] = lambda height, model: None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        super().__init__(reactor)
        self.knowledge = knowledge if knowledge is not None else Knowledge(reactor)
        self.stages: dict[tuple[int, str], StageWatch] = {}
        self.problems: dict[str, str] = self.knowledge.problems if knowledge is None else {}
        self._asks_container = knowledge is None
        self._client = client
        self._database = database
        self._chain = chain
        self._handed_on = handed_on
        self._look_seconds = look_seconds
        self._turns = 0
        self._is_loaded = False
        self._saved: dict[tuple[int, str], bytes] = {}

    def stopService(self) -> Deferred[None]:
        """Ask nothing more; fires when nothing is left of it."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop_ended: Deferred[None]) -> None:
        await loop_ended
        await self._client.close()
        if self._chain is not None:
            await self._chain.close()
        await self._save()

    async def loop(self) -> None:
        """Look again and again."""
        while self.running:
            if not self._is_loaded:
                await self._load()
            await self._turn()
            if self._turns % _SAVE_EACH == 0:
                await self._save()
            await deferLater(self._reactor, self._look_seconds)

    async def _turn(self) -> None:
        knowledge, turn = self.knowledge, self._turns
        questions: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if self._asks_container:
            questions += [
                partial(self._ask, "epochs", self._client.epochs, knowledge.learn_epochs),
                partial(self._ask, "metrics", self._client.start_time, knowledge.learn_start_time),
            ]
            if turn % _NODES_EACH == 0:
                questions.append(partial(self._ask, "nodes", self._client.nodes, knowledge.learn_nodes))
        if self._chain is not None:
            questions.append(partial(self._ask, "clock", self._chain.look_at_clock, lambda _: None))
            if turn % _CHALLENGE_EACH == 0:
                questions.append(partial(self._ask, "challenge", self._chain.challenge, self._learn_challenge))
        self._turns += 1
        await together(questions)
        if knowledge.epochs is None or "epochs" in knowledge.problems:
            return
        models = sorted(knowledge.models)
        looks = [
            partial(self._look, stage, models, asks_votes=turn % _VOTES_EACH == 0) for stage in knowledge.open_stages()
        ]
        await together(looks)

    def _learn_challenge(self, challenge: StageWindow | None) -> None:
        if challenge is not None:
            self.knowledge.learn_challenge(challenge)

    async def _ask(
        self, what: str, question: Callable[[], Coroutine[Any, Any, Any]], learn: Callable[[Any], object]
    ) -> Any:
        """Have the answer learnt, and return it; None without one. The problem is kept until there is one."""
        try:
            answer = await question()
        except (ApiUnavailableError, ChainError) as error:
            self.problems[what] = str(error)
            return None
        self.problems.pop(what, None)
        learn(answer)
        return answer

    async def _look(self, stage: StageWindow, models: list[str], *, asks_votes: bool) -> None:
        votes: dict[str, Votes] = {}
        is_validation = stage.validation_start <= self.knowledge.height and stage.kind is not StageKind.CHALLENGE
        if self._chain is not None and asks_votes and is_validation:
            await self._ask("votes", partial(self._chain.votes, stage.height), votes.update)
        await together([partial(self._look_at_model, stage, model, votes.get(model)) for model in models])

    async def _look_at_model(self, stage: StageWindow, model: str, votes: Votes | None) -> None:
        knowledge, height = self.knowledge, stage.height
        count = await self._ask("state", partial(self._client.count, height, model), lambda _: None)
        committed = has_weights = None
        if self._chain is not None:
            committed = await self._ask("chain", partial(self._chain.committed, height, model), lambda _: None)
            has_weights = await self._ask("chain", partial(self._chain.has_weights, height, model), lambda _: None)
        if (epochs := knowledge.epochs) is None:
            return
        nodes = [node for node in knowledge.nodes or () if model in node.models]
        watch = self._watch_of(stage, model)
        watch.move(stage)
        watch.see(
            Seen(
                now=self._reactor.seconds(),
                height=epochs.block_height,
                stored=count,
                committed=committed,
                has_weights=has_weights,
                votes=votes,
                generating=frozenset(node.node_id for node in nodes if node.status == GENERATING),
                failures={node.node_id: node.failure for node in nodes},
                restarts=knowledge.restarts,
                handed_on=self._handed_on(height, model),
            )
        )

    def _watch_of(self, stage: StageWindow, model: str) -> StageWatch:
        key = (stage.height, model)
        if key not in self.stages:
            # A chain that began anew has lower heights than what is known from before.
            for old in sorted(self.stages)[: 1 - _REMEMBERED]:
                del self.stages[old]
                self._saved.pop(old, None)
            self.stages[key] = StageWatch(WatchedStage.of(stage, model), self.knowledge.restarts)
        return self.stages[key]

    # The database.

    async def _load(self) -> None:
        try:
            records = await self._database.read(partial(watched_stage.load, limit=_REMEMBERED))
        except StoreError:
            # It tells itself what is wrong with it.
            return
        self._is_loaded = True
        for record in records:
            key = (record.height, record.model)
            self.stages[key] = StageWatch(record, self.knowledge.restarts)
            self._saved[key] = msgspec.json.encode(record)

    async def _save(self) -> None:
        """Keep what has changed; a disk that fails is told later."""
        if not self._is_loaded:
            return
        encoded = {key: msgspec.json.encode(each.record) for key, each in self.stages.items()}
        changed = {key: record for key, record in encoded.items() if self._saved.get(key) != record}
        if not changed:
            return
        try:
            await self._database.write(lambda connection: watched_stage.save(connection, changed))
        except StoreError as error:
            self.log.info("what was seen of PoC v2 is kept later: {error}", error=error)
            return
        self._saved.update(changed)

    def latest_stages(self, limit: int) -> list[dict[str, Any]]:
        """Return what is known of the latest stages, the highest first."""
        heights = sorted({height for height, _ in self.stages}, reverse=True)[:limit]
        keys = sorted(self.stages, key=lambda key: (-key[0], key[1]))
        return [self.stages[key].record.shown() for key in keys if key[0] in heights]

    def status(self) -> dict[str, Any]:
        """Return what ``GET status`` shows of the watch: the latest stages first."""
        knowledge, epochs = self.knowledge, self.knowledge.epochs
        open_heights = {stage.height for stage in knowledge.open_stages()}
        newest = {max(open_heights or {height for height, _ in self.stages}, default=0)} | open_heights
        return {
            "height": epochs.block_height if epochs is not None else None,
            "phase": epochs.phase if epochs is not None else None,
            "is_generating": knowledge.is_generating_time,
            "knows_commits": self._chain is not None,
            "clock_offset_seconds": self._chain.clock_offset_seconds if self._chain is not None else None,
            "questions": dict(self.problems),
            "nodes": [
                {"node_id": node.node_id, "host": node.host, "status": node.status}
                for node in (knowledge.nodes or ())[:_MAX_NODES]
            ],
            "troubles": [
                {"kind": str(kind), "height": height, "model": model, "problem": text}
                for (height, model), each in sorted(self.stages.items())
                if height in newest
                for kind, text in each.troubles().items()
                # Of a stage that is over, what was lost; all else is past.
                if height in open_heights or kind is Trouble.TAIL
            ],
            "stages": [each.status() for _, each in sorted(self.stages.items(), reverse=True)],
            "loop_problem": self.loop_problem,
        }
