"""Asks a node what it does, and compares it with its duty."""

from __future__ import annotations

from typing import NamedTuple

from dapi.broker.duties import MEANINGS
from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import NOT_OF_INFERENCE
from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeState
from dapi.phases.duty import Duty

_MAX_SICK_ANSWERS = 3


class Inspection(NamedTuple):
    """What a node says that it does, and whether that is its duty."""

    current: str
    does_its_duty: bool


class NodeInspector:
    """Asks one node, from the end of one command to the next.

    A proof of work whose model was initialized and is not any more has begun anew, by whatever it was: it has forgotten
    what it was given, uses no connection that is open, and may work for another stage. ``is_model_initialized`` is what
    the command was answered. Fact: docs/protocol/node.md, 'Restarts'.

    Stopping a node that is only busy would cost minutes, so inference counts as not healthy after three such answers in
    a row. No answer, or a 404, does not count: the node's inference may be at another address than the configured one.
    """

    def __init__(self, worker: NodeWorker, *, is_model_initialized: bool = False) -> None:
        self._worker = worker
        self._is_model_initialized = is_model_initialized
        self._sick_answers = 0

    async def inspect(self, duty: Duty) -> Inspection:
        """Ask the node; raises MLNodeError when it is not known whether the node does its duty."""
        client, meaning = self._worker.ml_client, MEANINGS[duty]
        state = await client.state()
        if state is not meaning.node_state:
            return Inspection(state, False)
        if state is MLNodeState.POW:
            answer = await client.pow_status()
            was_initialized, self._is_model_initialized = (
                self._is_model_initialized,
                answer.is_model_initialized is True,
            )
            if was_initialized and answer.is_model_initialized is False:
                return Inspection(f"{answer.status}, begun anew", False)
            return Inspection(answer.status, answer.status in meaning.pow_states)
        if state is MLNodeState.INFERENCE:
            return await self._inspect_inference()
        return Inspection(state, True)

    async def _inspect_inference(self) -> Inspection:
        try:
            await self._worker.ml_client.inference_health(self._worker.node.config.inference_url)
        except MLNodeError as error:
            if error.status in NOT_OF_INFERENCE:
                raise
            self._sick_answers += 1
            if self._sick_answers < _MAX_SICK_ANSWERS:
                raise
            return Inspection("INFERENCE, not healthy", False)
        self._sick_answers = 0
        return Inspection(MLNodeState.INFERENCE, True)
