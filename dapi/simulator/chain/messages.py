"""The messages that the simulated chain knows, with what can be checked of each without any state.

Facts: docs/protocol/chain.md, 'Messages', 'Checks of messages', 'Newer chains', 'Hardware nodes' and 'Claims'. A
further message is a class like these and an entry in ``_HOST_MESSAGES``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

from dapi.simulator.chain.addresses import is_address
from dapi.simulator.chain.rules import Rules, TxRefused, check
from dapi.simulator.chain.wire import (
    BOOL,
    DOUBLE,
    INT64,
    PACKED_DOUBLE,
    PACKED_INT64,
    STRING,
    UINT64,
    AnyMessage,
    Message,
    WireError,
    decode,
    embedded,
    repeated,
)

M = TypeVar("M", bound=Message)


class HostMessage(Message, frozen=True):
    """Base of what a host sends; ``creator`` is the participant."""

    TYPE_URL: ClassVar[str]
    creator: str = ""

    @property
    def signer(self) -> str:
        """Who must have signed, or granted, this."""
        return self.creator

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        _check_address("creator", self.creator)


class SubmitPocBatch(HostMessage, frozen=True):
    """inference.inference.MsgSubmitPocBatch."""

    TYPE_URL: ClassVar = "/inference.inference.MsgSubmitPocBatch"
    WIRE: ClassVar = {
        1: ("creator", STRING),
        2: ("poc_stage_start_block_height", INT64),
        3: ("batch_id", STRING),
        4: ("nonces", PACKED_INT64),
        5: ("dist", PACKED_DOUBLE),
        6: ("node_id", STRING),
    }
    poc_stage_start_block_height: int = 0
    batch_id: str = ""
    nonces: tuple[int, ...] = ()
    dist: tuple[float, ...] = ()
    node_id: str = ""

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        super().check(rules)
        check(self.poc_stage_start_block_height > 0, "poc_stage_start_block_height must be positive")
        check(bool(self.batch_id.strip()), "batch_id must not be blank")
        check(bool(self.nonces), "nonces must not be empty")
        check(min(self.nonces) >= 0, "nonces must not be negative")
        check(bool(self.dist), "dist must not be empty")
        check(all(math.isfinite(dist) and dist >= 0 for dist in self.dist), "dist must be finite and not negative")
        check(len(self.nonces) == len(self.dist), "nonces and dist must have the same length")
        if rules.max_nonces is not None:
            check(len(self.nonces) <= rules.max_nonces, f"too many nonces: {len(self.nonces)} > {rules.max_nonces}")
        if rules.max_id_characters is not None:
            longest = max(len(self.batch_id), len(self.node_id))
            check(longest <= rules.max_id_characters, f"batch_id and node_id: at most {rules.max_id_characters}")


class SubmitPocValidation(HostMessage, frozen=True):
    """inference.inference.MsgSubmitPocValidation."""

    TYPE_URL: ClassVar = "/inference.inference.MsgSubmitPocValidation"
    WIRE: ClassVar = {
        1: ("creator", STRING),
        2: ("participant_address", STRING),
        3: ("poc_stage_start_block_height", INT64),
        4: ("nonces", PACKED_INT64),
        5: ("dist", PACKED_DOUBLE),
        6: ("received_dist", PACKED_DOUBLE),
        7: ("r_target", DOUBLE),
        8: ("fraud_threshold", DOUBLE),
        9: ("n_invalid", INT64),
        10: ("probability_honest", DOUBLE),
        11: ("fraud_detected", BOOL),
    }
    participant_address: str = ""
    poc_stage_start_block_height: int = 0
    nonces: tuple[int, ...] = ()
    dist: tuple[float, ...] = ()
    received_dist: tuple[float, ...] = ()
    r_target: float = 0.0
    fraud_threshold: float = 0.0
    n_invalid: int = 0
    probability_honest: float = 0.0
    fraud_detected: bool = False

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        super().check(rules)
        _check_address("participant_address", self.participant_address)
        check(self.poc_stage_start_block_height > 0, "poc_stage_start_block_height must be positive")


class SubmitSeed(HostMessage, frozen=True):
    """inference.inference.MsgSubmitSeed."""

    TYPE_URL: ClassVar = "/inference.inference.MsgSubmitSeed"
    WIRE: ClassVar = {1: ("creator", STRING), 2: ("epoch_index", UINT64), 3: ("signature", STRING)}
    epoch_index: int = 0
    signature: str = ""


class Hardware(Message, frozen=True):
    """inference.inference.Hardware: so many GPUs of a type."""

    WIRE: ClassVar = {1: ("type", STRING), 2: ("count", UINT64)}
    type: str = ""
    count: int = 0


class HardwareNode(Message, frozen=True):
    """inference.inference.HardwareNode: an ML node that a participant declares."""

    WIRE: ClassVar = {
        1: ("local_id", STRING),
        2: ("status", INT64),
        3: ("models", repeated(STRING)),
        4: ("hardware", repeated(embedded(Hardware))),
        5: ("host", STRING),
        6: ("port", STRING),
    }
    local_id: str = ""
    status: int = 0
    models: tuple[str, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    host: str = ""
    port: str = ""


class SubmitHardwareDiff(HostMessage, frozen=True):
    """inference.inference.MsgSubmitHardwareDiff."""

    TYPE_URL: ClassVar = "/inference.inference.MsgSubmitHardwareDiff"
    WIRE: ClassVar = {
        1: ("creator", STRING),
        2: ("new_or_modified", repeated(embedded(HardwareNode))),
        3: ("removed", repeated(embedded(HardwareNode))),
    }
    new_or_modified: tuple[HardwareNode, ...] = ()
    removed: tuple[HardwareNode, ...] = ()


class ClaimRewards(HostMessage, frozen=True):
    """inference.inference.MsgClaimRewards."""

    TYPE_URL: ClassVar = "/inference.inference.MsgClaimRewards"
    WIRE: ClassVar = {1: ("creator", STRING), 2: ("seed", INT64), 3: ("epoch_index", UINT64)}
    seed: int = 0
    epoch_index: int = 0


class Exec(Message, frozen=True):
    """cosmos.authz.v1beta1.MsgExec: messages of others, signed by the one they granted it to."""

    TYPE_URL: ClassVar = "/cosmos.authz.v1beta1.MsgExec"
    WIRE: ClassVar = {1: ("grantee", STRING), 2: ("msgs", repeated(embedded(AnyMessage)))}
    grantee: str = ""
    msgs: tuple[AnyMessage, ...] = ()

    @property
    def signer(self) -> str:
        """Who must have signed this."""
        return self.grantee

    def check(self, rules: Rules) -> None:
        """Look at the wrapping only: what is inside is checked at delivery."""
        _check_address("grantee", self.grantee)
        check(bool(self.msgs), "messages cannot be empty")

    def inner(self) -> tuple[HostMessage, ...]:
        """Unpack what is inside; an Exec in an Exec is not simulated."""
        return tuple(_unpack(message, _HOST_MESSAGES) for message in self.msgs)


ChainMessage = HostMessage | Exec

_HOST_MESSAGES: dict[str, type[HostMessage]] = {
    message_type.TYPE_URL: message_type
    for message_type in (SubmitPocBatch, SubmitPocValidation, SubmitSeed, SubmitHardwareDiff, ClaimRewards)
}
_MESSAGES: dict[str, type[ChainMessage]] = {**_HOST_MESSAGES, Exec.TYPE_URL: Exec}


def unpack(packed: AnyMessage) -> ChainMessage:
    """Read a message of a transaction; raises WireError on one that the chain does not know."""
    return _unpack(packed, _MESSAGES)


def _unpack(packed: AnyMessage, known: Mapping[str, type[M]]) -> M:
    if packed.type_url not in known:
        raise WireError(f"unable to resolve type URL {packed.type_url}")
    return decode(known[packed.type_url], packed.value)


def _check_address(field: str, address: str) -> None:
    if not is_address(address):
        raise TxRefused("sdk", 7, f"invalid {field} address {address!r}: invalid address")
