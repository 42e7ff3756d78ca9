"""The messages that the simulated chain knows, with what can be checked of each without any state.

Field numbers and checks: docs/protocol/chain.md, 'Messages' and 'Checks of messages' and 'Newer chains'. A further
message is a class like these and an entry in ``_MESSAGES``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import msgspec

from dapi.simulator.chain.addresses import is_address
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


class TxRefused(Exception):  # noqa: N818
    """A transaction, or a message of it, is refused with a code."""

    def __init__(self, codespace: str, code: int, log: str) -> None:
        super().__init__(log)
        self.codespace = codespace
        self.code = code
        self.log = log


class Rules(msgspec.Struct):
    """What differs between versions of the chain; may be changed while it runs.

    The defaults are those of the newest version with PoC v1. None as a limit: there is none.
    """

    max_nonces: int | None = 10_000
    max_id_characters: int | None = 128
    second_validation_is_refused: bool = True
    """With 1160; older versions overwrite."""
    windows_in_check_tx: bool = False
    """Refuse with 1107, 1108 and 1161 already when broadcast."""
    poc_v2: bool = False
    """Refuse everything of v1 with 1161."""


class SubmitPocBatch(Message, frozen=True):
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
    creator: str = ""
    poc_stage_start_block_height: int = 0
    batch_id: str = ""
    nonces: tuple[int, ...] = ()
    dist: tuple[float, ...] = ()
    node_id: str = ""

    @property
    def signer(self) -> str:
        """Who must have signed, or granted, this."""
        return self.creator

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        _check_address("creator", self.creator)
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


class SubmitPocValidation(Message, frozen=True):
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
    creator: str = ""
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

    @property
    def signer(self) -> str:
        """Who must have signed, or granted, this."""
        return self.creator

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        _check_address("creator", self.creator)
        _check_address("participant_address", self.participant_address)
        check(self.poc_stage_start_block_height > 0, "poc_stage_start_block_height must be positive")


class SubmitSeed(Message, frozen=True):
    """inference.inference.MsgSubmitSeed."""

    TYPE_URL: ClassVar = "/inference.inference.MsgSubmitSeed"
    WIRE: ClassVar = {1: ("creator", STRING), 2: ("epoch_index", UINT64), 3: ("signature", STRING)}
    creator: str = ""
    epoch_index: int = 0
    signature: str = ""

    @property
    def signer(self) -> str:
        """Who must have signed, or granted, this."""
        return self.creator

    def check(self, rules: Rules) -> None:
        """ValidateBasic: what needs no state."""
        _check_address("creator", self.creator)


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

    def inner(self) -> tuple[PocMessage, ...]:
        """Unpack what is inside; an Exec in an Exec is not simulated."""
        return tuple(_unpack(message, _POC_MESSAGES) for message in self.msgs)


PocMessage = SubmitPocBatch | SubmitPocValidation | SubmitSeed
ChainMessage = PocMessage | Exec

_POC_MESSAGES: dict[str, type[PocMessage]] = {
    message_type.TYPE_URL: message_type for message_type in (SubmitPocBatch, SubmitPocValidation, SubmitSeed)
}
_MESSAGES: dict[str, type[ChainMessage]] = {**_POC_MESSAGES, Exec.TYPE_URL: Exec}


def unpack(packed: AnyMessage) -> ChainMessage:
    """Read a message of a transaction; raises WireError on one that the chain does not know."""
    return _unpack(packed, _MESSAGES)


def _unpack(packed: AnyMessage, known: Mapping[str, type[M]]) -> M:
    if packed.type_url not in known:
        raise WireError(f"unable to resolve type URL {packed.type_url}")
    return decode(known[packed.type_url], packed.value)


def check(is_right: bool, log: str) -> None:
    """Raise TxRefused (sdk 18) with ``log`` where something is not as it must be."""
    if not is_right:
        raise TxRefused("sdk", 18, f"{log}: invalid request")


def _check_address(field: str, address: str) -> None:
    if not is_address(address):
        raise TxRefused("sdk", 7, f"invalid {field} address {address!r}: invalid address")
