"""What each duty means for a node: the command that brings the node to it, and the states in which the node does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from dapi.broker.node_worker_commands import (
    Command,
    InferenceUpCommand,
    InitValidateCommand,
    StartPocCommand,
    StopNodeCommand,
)
from dapi.mlnode.client import InitRequest, MLNodeState, PowState
from dapi.phases.duty import Duty


class Intention(msgspec.Struct, frozen=True):
    """What a node is intended to do; for GENERATE and VALIDATE, in which stage.

    ``block_hash`` in the case it came in, ``public_key`` in hex, ``node_count`` as it was when the stage began: another
    one would restart every node. A node whose number is not below ``node_count`` must not be given such an intention:
    its nonces would be another node's.
    """

    duty: Duty
    block_height: int = 0
    block_hash: str = ""
    public_key: str = ""
    node_count: int = 0


class DutyMeaning(NamedTuple):
    """What a duty means for a node.

    ``make_command`` makes the command that brings the node to the duty. A node that does its duty says ``node_state``;
    where that is POW, its proof of work says one of ``pow_states``.
    """

    make_command: Callable[[InitRequest], Command]
    node_state: MLNodeState
    pow_states: tuple[PowState, ...] = ()


# A node loads its model first, whether it is to generate or to validate.
MEANINGS: Final[Mapping[Duty, DutyMeaning]] = {
    Duty.GENERATE: DutyMeaning(StartPocCommand, MLNodeState.POW, (PowState.LOADING, PowState.GENERATING)),
    Duty.VALIDATE: DutyMeaning(InitValidateCommand, MLNodeState.POW, (PowState.LOADING, PowState.VALIDATING)),
    Duty.INFERENCE: DutyMeaning(lambda _request: InferenceUpCommand(), MLNodeState.INFERENCE),
    Duty.STOPPED: DutyMeaning(lambda _request: StopNodeCommand(), MLNodeState.STOPPED),
}
