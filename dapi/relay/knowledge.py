"""What is known of the api container now: the stages, the nodes, and since when it runs; asked again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import Logger

from dapi.relay.api_answers import ApiNode, Epochs, StageWindow
from dapi.relay.facts import Facts, Target
from dapi.relay.payload import Headers, Payload
from dapi.relay.suspicion import is_content_type_right, is_of_its_node, is_too_high
from dapi.timing.observers import Observers

_BLOCK_SECONDS = 5.0
_MAX_STAGES = 32
# Once the container has told nothing for so long, a stage that is not known is handed on all the same: a wrong URL, or
# a public port that fails, must not cost a host its stage.
_PATIENCE_SECONDS = 10.0
_SHORTEST_BLOCK_SECONDS = 1.0
_MAX_AGE_SECONDS = 3600.0
_MAX_NODE_COUNTS = 16
GENERATING = "GENERATING"


class Knowledge:
    """Facts of the container; ``None`` where it has not told. ``models`` are those that its nodes run.

    ``stages`` are the stages that it, or the chain, has told of, the latest 32. ``observe`` is called when a stage, or
    the models of the nodes, became known. ``generating`` says since when which node says that it generates, by its id,
    on the reactor's clock.
    """

    log = Logger()

    def __init__(self, reactor: Any, *, holds_suspects: bool = True, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._holds_suspects = holds_suspects
        self.epochs: Epochs | None = None
        self.nodes: tuple[ApiNode, ...] | None = None
        self.models: frozenset[str] = frozenset()
        self.stages: dict[int, StageWindow] = {}
        self.generating: dict[str, float] = {}
        # A node goes on with the node count of its init, whatever is registered later.
        self._node_counts: dict[int, None] = {}
        self.started_at: float | None = None
        self.restarts = 0
        self.block_seconds = _BLOCK_SECONDS
        self.problems: dict[str, str] = {}
        self._reactor = reactor
        self._began = self._told_at = reactor.seconds()
        self._on_change: Observers[[]] = Observers()
        self._block_at: tuple[int, float] | None = None

    def begin(self) -> None:
        """Hear that the container is asked from now on: what it tells first is waited for, for 10 s."""
        self._began = self._told_at = self._reactor.seconds()

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` each time something became known that decides what is handed on."""
        self._on_change.add(observer)

    def learn_epochs(self, epochs: Epochs) -> None:
        """Take what ``epochs/latest`` says."""
        self._measure_blocks(epochs.block_height)
        self._told_at = self._reactor.seconds()
        is_news = self.epochs is None or epochs.newest != self.epochs.newest
        self.epochs = epochs
        self._add_stages(epochs.stages)
        if is_news:
            self._on_change()

    def learn_challenge(self, challenge: StageWindow) -> None:
        """Take a PoC challenge of this host, of which the chain alone tells; its end may move."""
        is_news = challenge.height not in self.stages
        self._add_stages([challenge])
        if is_news:
            self._on_change()

    def _add_stages(self, stages: Iterable[StageWindow]) -> None:
        self.stages.update((stage.height, stage) for stage in stages)
        for height in sorted(self.stages)[:-_MAX_STAGES]:
            del self.stages[height]

    def learn_nodes(self, nodes: tuple[ApiNode, ...]) -> None:
        """Take what ``admin/v1/nodes`` says."""
        models = frozenset(model for node in nodes for model in node.models)
        is_news = self.nodes is None or models != self.models
        self.nodes, self.models = nodes, models
        now = self._reactor.seconds()
        self.generating = {
            node.node_id: self.generating.get(node.node_id, now) for node in nodes if node.status == GENERATING
        }
        if nodes:
            node_count = max(node.node_num for node in nodes) + 1
            is_news |= node_count not in self._node_counts
            self._node_counts.pop(node_count, None)
            self._node_counts[node_count] = None
            for old in list(self._node_counts)[:-_MAX_NODE_COUNTS]:
                del self._node_counts[old]
        if is_news:
            self._on_change()

    def learn_start_time(self, started_at: float) -> bool:
        """Take when the container was started; return whether it was started anew since the last time."""
        is_anew = self.started_at is not None and started_at != self.started_at
        self.started_at = started_at
        if is_anew:
            self.restarts += 1
            self.log.warn("the api container was started anew: what it had in memory is sent again")
        return is_anew

    def held_reason(self, said: Target, headers: Headers, facts: Facts, counted: int) -> str | None:
        """Say why a callback must not be handed on, or None.

        ``counted`` is how many artifacts of its stage and model there are without it.
        """
        height, model = facts.height, said.model
        if self._holds_suspects and (suspicion := self._suspicion(said, headers, facts, counted)) is not None:
            return suspicion
        if height is not None and (reason := self._why_unknown(height)) is not None:
            return reason
        is_early = self._reactor.seconds() - self._began < _PATIENCE_SECONDS
        if model is not None and self.nodes is None and is_early:
            return "the api container has not told its nodes yet"
        # Nodes that tell no model at all say nothing about this one.
        if model is not None and self.models and model not in self.models:
            return "none of the host's nodes runs its model"
        return None

    def _why_unknown(self, height: int) -> str | None:
        epochs, untold_seconds = self.epochs, self._reactor.seconds() - self._told_at
        if epochs is not None and height <= self.newest:
            return None
        if untold_seconds < _PATIENCE_SECONDS:
            if epochs is None:
                return "the api container has not told its stage yet"
            return f"stage {height} is not known to the api container, which knows stage {self.newest}"
        if epochs is not None and height > epochs.block_height + untold_seconds / _SHORTEST_BLOCK_SECONDS:
            return f"the chain cannot have come to stage {height} since the api container told its height"
        return None

    def _suspicion(self, said: Target, headers: Headers, facts: Facts, counted: int) -> str | None:
        if said.kind is None:
            # What the container has no route for is told nobody.
            return None
        if not is_content_type_right(headers):
            return "its content type is not application/json"
        if facts.suspicion is not None or said.kind != "generated" or not facts.nonces:
            return facts.suspicion
        counts = self._node_counts
        if facts.node_num is not None and counts and not any(is_of_its_node(facts, count) for count in counts):
            return f"a nonce is none of those of node number {facts.node_num}"
        if is_too_high(facts, counted, max(counts, default=1)):
            return f"nonce {facts.highest} is far above what as many artifacts need"
        return None

    def is_known(self, payload: Payload) -> bool:
        """Tell whether a payload is of a stage and a model that this host has."""
        return payload.facts.height in self.stages and (not self.models or payload.said.model in self.models)

    @property
    def newest(self) -> int:
        """The height of the newest stage that was ever told, 0 without one."""
        return max(self.stages, default=0)

    @property
    def height(self) -> int:
        """The latest block that the container told, 0 before it told one."""
        return self.epochs.block_height if self.epochs is not None else 0

    @property
    def oldest_open(self) -> int:
        """The height of the oldest stage that is not over, that of the newest one where all are."""
        height = self.height
        return min((each.height for each in self.stages.values() if height < each.validation_end), default=self.newest)

    def open_stages(self) -> list[StageWindow]:
        """Return the stages that have begun, and whose validation has not ended."""
        height = self.height
        return [each for _, each in sorted(self.stages.items()) if each.start <= height < each.validation_end]

    def takes_no_more(self, height: int) -> bool:
        """Tell whether a stage is known to take no artifact any more."""
        stage = self.stages.get(height)
        # One that is older than all that the container has told of is over.
        return self.height > stage.end if stage is not None else bool(self.stages) and height < min(self.stages)

    def late_reason(self, payload: Payload) -> str | None:
        """Say that the window of a payload has ended, or None."""
        height, kind = payload.facts.height, payload.said.kind
        stage = self.stages.get(height) if height is not None and kind is not None else None
        if stage is not None:
            last = stage.end if kind == "generated" else stage.validation_end - 1
            return f"its window ended with block {last}" if self.height > last else None
        if height is not None and kind is not None and height < min(self.stages, default=0):
            # Older than all that the container has told of.
            return f"stage {height} is over"
        if self._now() - payload.received_at > _MAX_AGE_SECONDS:
            return "it has waited for an hour, and its stage is not known"
        return None

    def is_open(self, payload: Payload) -> bool | None:
        """Tell whether the window of a payload is open by the container's height; None: not known."""
        epochs = self.epochs
        stage = self.stages.get(payload.facts.height) if payload.facts.height is not None else None
        if epochs is None or stage is None:
            return None
        if payload.said.kind == "generated":
            return stage.start <= epochs.block_height <= stage.end
        return stage.validation_start <= epochs.block_height < stage.validation_end

    @property
    def is_generating_time(self) -> bool:
        """Whether a stage takes artifacts now."""
        return self.seconds_to_end() is not None

    def seconds_to_end(self) -> float | None:
        """Return for how long artifacts of the stage that ends first are still taken, None without an open one."""
        if self.epochs is None:
            return None
        height = self.epochs.block_height
        ends = [stage.end for stage in self.stages.values() if stage.start <= height <= stage.end]
        return (min(ends) - height) * self.block_seconds if ends else None

    def seconds_left(self, payload: Payload) -> float | None:
        """Return for how long a payload is still taken, as far as is known.

        A result is taken until its validation ends, artifacts until the stage that ends first does.
        """
        stage = self.stages.get(payload.facts.height) if payload.facts.height is not None else None
        if payload.said.kind != "validated" or stage is None or self.epochs is None:
            return self.seconds_to_end()
        return max(0, stage.validation_end - self.epochs.block_height) * self.block_seconds

    def _measure_blocks(self, height: int) -> None:
        now = self._reactor.seconds()
        if self._block_at is None or height < self._block_at[0]:
            self._block_at = (height, now)
        elif height - self._block_at[0] >= 5:
            self.block_seconds = (now - self._block_at[1]) / (height - self._block_at[0])
            self._block_at = (height, now)
