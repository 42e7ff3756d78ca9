"""What each duty asks of a node: the intention, and the states in which a node does its duty."""

from __future__ import annotations

from typing import Final

import msgspec

from dapi.mlnode.client import MLNodeState, PowState
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


STATE_OF: Final = {
    Duty.GENERATE: MLNodeState.POW,
    Duty.VALIDATE: MLNodeState.POW,
    Duty.INFERENCE: MLNodeState.INFERENCE,
    Duty.STOPPED: MLNodeState.STOPPED,
}
POW_STATES_OF: Final = {
    Duty.GENERATE: (PowState.LOADING, PowState.GENERATING),
    Duty.VALIDATE: (PowState.LOADING, PowState.VALIDATING),
}
