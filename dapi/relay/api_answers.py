"""What the api container tells of itself, read with patience: by version numbers come as texts, and phases as numbers.

Facts: docs/protocol/poc-v2.md, 'What can be asked' and 'Heights'.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dapi.messages.printable import printable

_START_TIME = re.compile(rb"^process_start_time_seconds\s+([0-9.eE+]+)", re.MULTILINE)

# The container counts and numbers in 64 bits.
_MAX_NUMBER = 2**63 - 1


class ApiAnswerError(Exception):
    """An answer is not what it should be; the text says what is wrong with it."""


class StageKind(enum.StrEnum):
    """Why artifacts are made."""

    REGULAR = "regular"
    """The PoC of an epoch."""
    CONFIRMATION = "confirmation"
    """A confirmation PoC: a short one at a height that nobody knows before."""
    CHALLENGE = "challenge"
    """A PoC challenge: somebody has asked for proof of this very host; the chain alone tells of it."""


class StageWindow(msgspec.Struct, frozen=True):
    """A stage: artifacts are taken from ``start`` to ``end``, results in the blocks after.

    ``validation_end`` is the first height at which no result is taken any more.
    """

    height: int
    start: int
    end: int
    validation_start: int
    validation_end: int
    kind: StageKind = StageKind.REGULAR


class Epochs(msgspec.Struct, frozen=True):
    """What ``epochs/latest`` says; ``stages`` are the regular stage, and the confirmation PoC if there is one."""

    block_height: int
    phase: str
    stages: tuple[StageWindow, ...]
    next_start: int

    @property
    def newest(self) -> int:
        """The height of the newest stage."""
        return max(stage.height for stage in self.stages)


class ApiNode(msgspec.Struct, frozen=True):
    """A node of the host: what it is, which models it runs, and what it says that it does."""

    node_id: str
    node_num: int
    host: str
    models: frozenset[str]
    status: str
    failure: str = ""


def read_epochs(answer: bytes) -> Epochs:
    """Return the epochs; raises ApiAnswerError.

    v0.2.15 has ``epoch_params`` one level deeper. Where it tells no durations at all, ``epoch_stages`` has the heights:
    windows without a length would make everything late.
    """
    told = _json(answer)
    height = number(told, "block_height")
    epoch, stages = _mapping(told, "latest_epoch"), _mapping(told, "epoch_stages")
    durations = _mapping(told, "epoch_params")
    durations = _mapping(durations, "epoch_params") or durations
    start = number(epoch, "poc_start_block_height") or number(stages, "poc_start")
    if not height:
        raise ApiAnswerError("epochs/latest tells no block_height")
    length = number(durations, "poc_stage_duration") or number(stages, "poc_generation_end") - start
    if length <= 0:
        raise ApiAnswerError("epochs/latest does not tell how long a stage is")
    exchange, delay = number(durations, "poc_exchange_duration"), number(durations, "poc_validation_delay")
    if not durations:
        exchange = max(0, number(_mapping(stages, "poc_exchange_window"), "end") - start - length)
        delay = max(0, number(stages, "poc_validation_start") - start - length)
    validation_start = start + length + delay
    validation = number(durations, "poc_validation_duration") or number(stages, "poc_validation_end") - validation_start
    found = [StageWindow(start, start, start + length + exchange, validation_start, validation_start + validation)]
    event = _mapping(told, "active_confirmation_poc_event")
    if told.get("is_confirmation_poc_active") and (trigger := number(event, "trigger_height")):
        begin = number(event, "generation_start_height") or trigger
        end = begin + length - 1 + exchange
        window = StageWindow(trigger, begin, end, end + delay, end + delay + validation - 1, StageKind.CONFIRMATION)
        found.append(window)
    next_start = number(stages, "next_poc_start") or start + number(durations, "epoch_length")
    return Epochs(height, str(told.get("phase", "")), tuple(found), next_start)


def read_nodes(answer: bytes) -> tuple[ApiNode, ...]:
    """Return the host's nodes; raises ApiAnswerError."""
    told = _json(answer, list)
    nodes = []
    for each in told:
        if not isinstance(each, dict):
            raise ApiAnswerError("admin/v1/nodes tells something that is no node")
        node, state = _mapping(each, "node"), _mapping(each, "state")
        models = node.get("models") or ()
        if not isinstance(models, dict | list | tuple):
            raise ApiAnswerError("admin/v1/nodes tells models that are none")
        nodes.append(
            ApiNode(
                node_id=str(node.get("id", "")),
                node_num=number(node, "node_num"),
                host=str(node.get("host", "")),
                models=frozenset(map(str, models)),
                status=str(state.get("poc_current_status", "")),
                failure=printable(str(state.get("failure_reason") or "")),
            )
        )
    return tuple(nodes)


def read_count(answer: bytes) -> int:
    """Return how many artifacts of a stage and model are on disk; raises ApiAnswerError."""
    told = _json(answer)
    if "count" not in told:
        raise ApiAnswerError("artifacts/state tells no count")
    return number(told, "count")


def read_start_time(answer: bytes) -> float:
    """Return when the container was started; raises ApiAnswerError."""
    found = _START_TIME.search(answer)
    if found is None:
        raise ApiAnswerError("metrics tell no process_start_time_seconds")
    try:
        return float(found[1])
    except ValueError:
        raise ApiAnswerError("process_start_time_seconds is no number") from None


def number(told: Mapping[str, Any], name: str) -> int:
    """Return a whole number that may be written as a text; 0 where it is missing, as the container leaves zeros out."""
    try:
        value = int(told.get(name, 0))
    except (TypeError, ValueError):
        value = -1
    if not 0 <= value <= _MAX_NUMBER:
        raise ApiAnswerError(f"{name} is no number from 0 to {_MAX_NUMBER}")
    return value


def _json(answer: bytes, wanted: Any = dict) -> Any:
    try:
        return msgspec.json.decode(answer, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiAnswerError(f"the answer is not the JSON that it should be: {error}") from None


def _mapping(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = told.get(name) or {}
    return value if isinstance(value, dict) else {}
