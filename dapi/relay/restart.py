"""Whether dapi, and the network's api container, may be restarted now on a network with PoC v2. Pure: no clock, no I/O.

Nothing passes through a dapi that only watches. One that relays is away from the nodes while it is restarted: a node
tries again, up to 30 s later, so near the end of a window its work may come too late. The container has up to 5 s of
artifacts in memory alone, brings commits and the nodes' weights onto the chain, and keeps votes back for up to 30 s.
"""

from __future__ import annotations

from typing import NamedTuple

from dapi.phases.restart import BLOCKS_FOR_A_RESTART, RestartAdvice
from dapi.relay.api_answers import StageKind, StageWindow
from dapi.relay.knowledge import Knowledge


class _Costs(NamedTuple):
    """What a restart costs, in words, by what is under way."""

    generating: str
    between: str
    validating: str


_LATE = ": what the nodes deliver meanwhile comes up to 30 s later, which may be too late"
_OF_DAPI = _Costs(_LATE, "", _LATE)
_OF_CONTAINER = _Costs(
    ": up to 5 s of them are in the container's memory alone, and would be lost",
    ": the container brings the weights of the nodes onto the chain, without which nothing counts",
    ": the container keeps votes back for up to 30 s",
)


def dapi_advice(knowledge: Knowledge, *, is_relayed: bool) -> RestartAdvice:
    """Say whether dapi may be restarted; ``is_relayed``: callbacks pass through it."""
    if not is_relayed:
        return RestartAdvice(True)
    return _advice(knowledge, _OF_DAPI)


def container_advice(knowledge: Knowledge, *, is_relayed: bool) -> RestartAdvice:
    """Say whether the api container may be restarted."""
    costs = _OF_CONTAINER
    if is_relayed:
        costs = costs._replace(generating=": what the container has in memory alone would have to be sent again")
    return _advice(knowledge, costs)


def _advice(knowledge: Knowledge, costs: _Costs) -> RestartAdvice:
    epochs = knowledge.epochs
    if epochs is None or "epochs" in knowledge.problems:
        problem = knowledge.problems.get("epochs")
        return RestartAdvice(False, "where the chain is, is not known now" + (f": {problem}" if problem else ""))
    height, stages = epochs.block_height, _stages(knowledge)
    for stage in stages:
        if _is_in_the_way(stage, height):
            return RestartAdvice(False, _reason(stage, height, costs), 0, _safe_at(stages, height))
    starts = [stage.start for stage in stages if stage.start > height]
    return RestartAdvice(True, blocks_left=min(starts) - height if starts else None)


def _stages(knowledge: Knowledge) -> list[StageWindow]:
    """Return the stages that are known and not over, and the next regular one; those that began are the first."""
    epochs = knowledge.epochs
    if epochs is None:
        return []
    found = [stage for stage in knowledge.stages.values() if epochs.block_height < stage.validation_end]
    regular, begins = epochs.stages[0], epochs.next_start
    if begins > max(epochs.block_height, regular.start) and begins not in knowledge.stages:
        later = begins - regular.start
        end, validation_start = regular.end + later, regular.validation_start + later
        found.append(StageWindow(begins, begins, end, validation_start, regular.validation_end + later))
    return sorted(found, key=lambda stage: stage.start)


def _is_in_the_way(stage: StageWindow, height: int) -> bool:
    return stage.start - BLOCKS_FOR_A_RESTART < height < stage.validation_end


def _safe_at(stages: list[StageWindow], height: int) -> int:
    """Return the first height at which no stage is in the way: one may begin right after another."""
    for stage in stages:
        if _is_in_the_way(stage, height):
            height = stage.validation_end
    return height


def _reason(stage: StageWindow, height: int, costs: _Costs) -> str:
    kind = "" if stage.kind is StageKind.REGULAR else f" ({stage.kind})"
    name = f"stage {stage.height}{kind} of PoC v2"
    if height < stage.start:
        return f"{name} begins in {stage.start - height} blocks"
    if height <= stage.end:
        return f"{name} takes artifacts until block {stage.end}{costs.generating}"
    if height < stage.validation_start:
        return f"{name} takes results from block {stage.validation_start} on{costs.between}"
    return f"{name} takes results until block {stage.validation_end - 1}{costs.validating}"
