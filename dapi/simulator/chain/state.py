"""What the simulated chain keeps: accounts, grants, and all that its messages leave behind.

Facts: docs/protocol/chain.md, 'What the chain keeps'. The stores are keyed as the chain keys them, so what is sent
twice under one id is stored once. Each store can be asked for what it held at an earlier height.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dapi.simulator.chain.epochs import ConfirmationEvent, EpochParams, Epochs
from dapi.simulator.chain.messages import (
    HardwareNode,
    HostMessage,
    SubmitPocBatch,
    SubmitPocValidation,
    SubmitSeed,
)
from dapi.simulator.chain.rules import Rules, TxRefused
from dapi.simulator.chain.stores import Store
from dapi.simulator.chain.transactions import Transaction
from dapi.simulator.chain.wire import bytes_field

Nonce = tuple[int, str]
"""What an unordered transaction uses up: its timeout timestamp in nanoseconds, and its signer."""


class Account(msgspec.Struct, frozen=True):
    """``public_key`` is None until the account's first transaction shows it."""

    address: str
    number: int
    public_key: bytes | None = None


class StoredBatch(msgspec.Struct, frozen=True):
    """A batch and the height at which it was received (for the last time)."""

    message: SubmitPocBatch
    received_at_height: int


class GroupNode(msgspec.Struct, frozen=True):
    """A participant's node in an epoch; the second of ``timeslots`` is POC_SLOT."""

    node_id: str
    timeslots: tuple[bool, ...] = ()
    poc_weight: int = 0


class GroupMember(msgspec.Struct, frozen=True):
    """A participant in an epoch's group; only groups of a model have nodes.

    ``weight`` is the base weight. ``confirmation_weight`` is that of the nodes without a POC_SLOT; together with that
    of the nodes with one it is the effective weight, which is paid for.
    """

    address: str
    nodes: tuple[GroupNode, ...] = ()
    weight: int = 0
    confirmation_weight: int = 0


class Model(msgspec.Struct, frozen=True):
    """A model that governance knows."""

    id: str
    hf_repo: str = ""
    model_args: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        """Return it as inference.inference.Model."""
        arguments = b"".join(bytes_field(10, argument) for argument in self.model_args)
        return bytes_field(2, self.id) + bytes_field(8, self.hf_repo) + arguments


class SettleAmount(msgspec.Struct, frozen=True):
    """What a participant may claim for an epoch."""

    participant: str
    reward_coins: int
    epoch_index: int
    seed_signature: str


class StateView:
    """The state as it was once the block at ``height`` was done; to be read only.

    ``batches`` is keyed by (stage start height, creator, batch_id), ``validations`` by (stage start height,
    participant, creator), ``seeds`` by (epoch index, creator), ``epoch_groups`` by (epoch index, model), a main group
    having no model, ``hardware_nodes`` by (participant, local id), ``grants`` by (granter, grantee, type URL).
    """

    accounts: Mapping[str, Account]
    participants: Mapping[str, int]
    grants: Mapping[tuple[str, str, str], int | None]
    nonces: Mapping[Nonce, bool]
    batches: Mapping[tuple[int, str, str], StoredBatch]
    validations: Mapping[tuple[int, str, str], SubmitPocValidation]
    seeds: Mapping[tuple[int, str], SubmitSeed]
    epoch_groups: Mapping[tuple[int, str], tuple[GroupMember, ...]]
    hardware_nodes: Mapping[tuple[str, str], HardwareNode]
    models: Mapping[str, Model]
    settle_amounts: Mapping[str, SettleAmount]
    balances: Mapping[str, int]
    store_commits: Mapping[tuple[int, str, str], int]
    node_weights: Mapping[tuple[int, str, str], Mapping[str, int]]
    votes: Mapping[tuple[int, str, str], frozenset[str]]
    challenges: Mapping[str, tuple[int, int]]
    settings: Mapping[str, Any]

    def __init__(self, state: ChainState, height: int) -> None:
        self.height = height
        self.chain_id = state.chain_id
        self.rules = state.rules
        for name in StateView.__annotations__:
            setattr(self, name, getattr(state, name).at(height))

    @property
    def epochs(self) -> Epochs:
        """The epochs, with the durations that governance had set."""
        return self.settings["epochs"]  # type: ignore[no-any-return]

    @property
    def confirmation(self) -> ConfirmationEvent | None:
        """The confirmation PoC of that time."""
        return self.settings["confirmation"]  # type: ignore[no-any-return]

    @property
    def time_ns(self) -> int:
        """The time of the block."""
        return self.settings["time_ns"]  # type: ignore[no-any-return]

    @property
    def mlnode_version(self) -> str:
        """The version that ML nodes are to have; empty: none."""
        return self.settings["mlnode_version"]  # type: ignore[no-any-return]


class ChainState:
    """The present of all that a StateView shows; may be changed at any time, which counts as done by the latest block.

    ``participants`` are those who registered, with the weight that genesis gives each of them. ``refuse_tx`` and
    ``refuse_message`` let a test refuse what the rules would take: the first a whole transaction when it comes in and
    in its block, the second one message in its block. Claims of participants in ``missed_inference_validations`` are
    not paid. Counts that were committed for PoC v2 (``store_commits``), the ``node_weights``, and who has
    voted (``votes``) are by stage, participant and model; ``challenges`` have where each begins and finishes, by its
    target.
    """

    def __init__(self, chain_id: str, epochs: Epochs, rules: Rules) -> None:
        self.chain_id = chain_id
        self.rules = rules
        self.height = 0
        self.refuse_tx: Callable[[Transaction], TxRefused | None] = lambda _: None
        self.refuse_message: Callable[[HostMessage], TxRefused | None] = lambda _: None
        self.accounts: Store[str, Account] = Store(self._now)
        self.participants: Store[str, int] = Store(self._now)
        self.grants: Store[tuple[str, str, str], int | None] = Store(self._now)
        self.nonces: Store[Nonce, bool] = Store(self._now)
        self.batches: Store[tuple[int, str, str], StoredBatch] = Store(self._now)
        self.validations: Store[tuple[int, str, str], SubmitPocValidation] = Store(self._now)
        self.seeds: Store[tuple[int, str], SubmitSeed] = Store(self._now)
        self.epoch_groups: Store[tuple[int, str], tuple[GroupMember, ...]] = Store(self._now)
        self.hardware_nodes: Store[tuple[str, str], HardwareNode] = Store(self._now)
        self.models: Store[str, Model] = Store(self._now)
        self.settle_amounts: Store[str, SettleAmount] = Store(self._now)
        self.balances: Store[str, int] = Store(self._now)
        self.store_commits: Store[tuple[int, str, str], int] = Store(self._now)
        self.node_weights: Store[tuple[int, str, str], Mapping[str, int]] = Store(self._now)
        self.votes: Store[tuple[int, str, str], frozenset[str]] = Store(self._now)
        self.challenges: Store[str, tuple[int, int]] = Store(self._now)
        self.missed_inference_validations: set[str] = set()
        self.settings: Store[str, Any] = Store(self._now)
        self.settings.update(epochs=epochs, confirmation=None, time_ns=0, mlnode_version="v3.0.8")

    def at(self, height: int) -> StateView:
        """Return the state as it was once the block at ``height`` was done."""
        return StateView(self, height)

    def begin_block(self, height: int, time_ns: int) -> None:
        """Let all that is written from now on be done by the block at ``height``."""
        self.height = height
        self.settings["time_ns"] = time_ns
        for nonce in [nonce for nonce in self.nonces if nonce[0] < time_ns]:
            del self.nonces[nonce]

    @property
    def epochs(self) -> Epochs:
        """The epochs, with their durations."""
        return self.settings["epochs"]  # type: ignore[no-any-return]

    @epochs.setter
    def epochs(self, epochs: Epochs) -> None:
        self.settings["epochs"] = epochs

    @property
    def confirmation(self) -> ConfirmationEvent | None:
        """The confirmation PoC that runs."""
        return self.settings["confirmation"]  # type: ignore[no-any-return]

    @confirmation.setter
    def confirmation(self, event: ConfirmationEvent | None) -> None:
        self.settings["confirmation"] = event

    @property
    def mlnode_version(self) -> str:
        """The version that ML nodes are to have; empty: none."""
        return self.settings["mlnode_version"]  # type: ignore[no-any-return]

    @mlnode_version.setter
    def mlnode_version(self, version: str) -> None:
        self.settings["mlnode_version"] = version

    def govern(self, **durations: int) -> EpochParams:
        """Change parameters of the epochs, from the next block on; return all of them."""
        params = msgspec.structs.replace(self.epochs.params, **durations)
        self.epochs = self.epochs.changed(self.height, params)
        return params

    def doubled_nonces(self) -> set[tuple[int, str, int]]:
        """Return (stage start height, creator, nonce) of all that is in more than one stored batch."""
        times = Counter(
            (height, creator, nonce)
            for (height, creator, _), stored in self.batches.items()
            for nonce in set(stored.message.nonces)
        )
        return {what for what, count in times.items() if count > 1}

    def _now(self) -> int:
        return self.height
