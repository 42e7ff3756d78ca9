"""What the simulated chain keeps and by which rules it changes: no socket, no clock, no mempool.

Rules and codes: docs/protocol/chain.md, 'Checks of messages' and 'What the chain keeps'. The stores are keyed as the
chain keys them, so what is sent twice under one id is stored once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, MutableMapping
from typing import Any

import msgspec

from dapi.simulator.chain.addresses import address_of_key
from dapi.simulator.chain.epochs import ConfirmationEvent, ConfirmationPhase, Epochs, Window
from dapi.simulator.chain.messages import (
    Exec,
    PocMessage,
    Rules,
    SubmitPocBatch,
    SubmitPocValidation,
    SubmitSeed,
    TxRefused,
)
from dapi.simulator.chain.transactions import (
    PUBLIC_KEY_URL,
    SIGN_MODE_DIRECT,
    PublicKey,
    Transaction,
    check_basic,
    is_signature,
)
from dapi.simulator.chain.wire import WireError, decode

_MAX_TTL_NS = 10 * 60 * 1_000_000_000

Nonce = tuple[int, str]
"""What an unordered transaction uses up: its timeout timestamp in nanoseconds, and its signer."""


class Account(msgspec.Struct):
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


class GroupMember(msgspec.Struct, frozen=True):
    """A participant in an epoch's group."""

    address: str
    nodes: tuple[GroupNode, ...] = ()


class ChainState:
    """Accounts, grants, used nonces, batches and validations.

    ``batches`` is keyed by (stage start height, creator, batch_id), ``validations`` by (stage start height,
    participant, creator), ``seeds`` by (epoch index, creator), ``epoch_groups`` by (epoch index, model), a main group
    having no model. ``rules``, ``epochs``, ``confirmation`` (a running confirmation PoC) and ``epoch_groups`` may be
    changed at any time.
    """

    def __init__(self, chain_id: str, epochs: Epochs, rules: Rules) -> None:
        self.chain_id = chain_id
        self.epochs = epochs
        self.rules = rules
        self.confirmation: ConfirmationEvent | None = None
        self.accounts: dict[str, Account] = {}
        self.grants: dict[tuple[str, str, str], int | None] = {}
        self.batches: dict[tuple[int, str, str], StoredBatch] = {}
        self.validations: dict[tuple[int, str, str], SubmitPocValidation] = {}
        self.seeds: dict[tuple[int, str], SubmitSeed] = {}
        self.epoch_groups: dict[tuple[int, str], tuple[GroupMember, ...]] = {}
        self._nonces: set[Nonce] = set()

    def check_tx(self, tx: Transaction, height: int, time_ns: int, pending: Collection[Nonce]) -> None:
        """Do what CheckTx does before a mempool takes it; ``height`` and ``time_ns`` are the latest block's.

        ``pending`` are the nonces of what is in the mempool. Raises TxRefused.
        """
        check_basic(tx, self.rules)
        self._check_signed(tx, height, time_ns, pending)
        if self.rules.windows_in_check_tx:
            for message in tx.poc_messages():
                refusal = None if isinstance(message, SubmitSeed) else self._window_refusal(message, height)
                if refusal is not None and refusal.code != _UPCOMING_EPOCH_NOT_FOUND:
                    raise refusal

    def deliver_tx(self, tx: Transaction, height: int, time_ns: int) -> None:
        """Execute a transaction in the block at ``height``: all of its messages or, on TxRefused, none.

        A transaction whose messages fail has used its nonce all the same.
        """
        check_basic(tx, self.rules)
        signer = self._check_signed(tx, height, time_ns, ())
        self._nonces.add(_nonce_of(tx, signer))
        self.accounts[signer].public_key = _key_of(tx) or self.accounts[signer].public_key
        writes = _Writes()
        for index, (message, unwrapped) in enumerate(zip(tx.messages, tx.unwrapped, strict=True)):
            try:
                if isinstance(message, Exec):
                    self._execute_granted(message.grantee, unwrapped, height, time_ns, writes)
                else:
                    self._execute(message, height, writes)
            except TxRefused as refusal:
                writes.undo()
                log = f"failed to execute message; message index: {index}: {refusal.log}"
                raise TxRefused(refusal.codespace, refusal.code, log) from refusal

    def forget_expired_nonces(self, time_ns: int) -> None:
        """Drop the nonces that no transaction can use any more at this block time."""
        self._nonces = {nonce for nonce in self._nonces if nonce[0] >= time_ns}

    def doubled_nonces(self) -> set[tuple[int, str, int]]:
        """Give (stage start height, creator, nonce) of all that is in more than one stored batch."""
        times = Counter(
            (height, creator, nonce)
            for (height, creator, _), stored in self.batches.items()
            for nonce in set(stored.message.nonces)
        )
        return {what for what, count in times.items() if count > 1}

    def _check_signed(self, tx: Transaction, height: int, time_ns: int, pending: Collection[Nonce]) -> str:
        """Check all that concerns the signer and the time, in the order of the SDK's decorators; give the signer."""
        if tx.auth.fee.gas_limit == 0:
            raise TxRefused("sdk", 41, "must provide positive gas: invalid gas limit")
        timeout_ns = tx.timeout_ns
        if tx.body.timeout_height and height > tx.body.timeout_height:
            raise TxRefused("sdk", 30, f"block height: {height}, timeout height: {tx.body.timeout_height}: tx timeout")
        if timeout_ns is not None and time_ns > timeout_ns:
            raise TxRefused("sdk", 42, f"block time: {time_ns} ns, timeout: {timeout_ns} ns: tx timeout")
        signers = {message.signer for message in tx.messages}
        signer = min(signers)
        if signer not in self.accounts:
            raise TxRefused("sdk", 9, f"fee payer address: {signer} does not exist: unknown address")
        if not len(signers) == len(tx.auth.signer_infos) == len(tx.signatures) == 1:
            raise TxRefused("sdk", 4, "wrong number of signers; expected 1: unauthorized")
        self._check_unordered(tx, signer, time_ns, pending)
        self._check_signature(tx, self.accounts[signer])
        return signer

    def _check_unordered(self, tx: Transaction, signer: str, time_ns: int, pending: Collection[Nonce]) -> None:
        timeout_ns = tx.timeout_ns
        reason = None
        if not tx.body.unordered:
            reason = "this simulated chain takes unordered transactions only"
        elif tx.auth.signer_infos[0].sequence:
            reason = "sequence is not allowed for unordered transactions"
        elif timeout_ns is None:
            reason = "unordered transaction must have timeout_timestamp set"
        elif timeout_ns > time_ns + _MAX_TTL_NS:
            reason = "unordered tx ttl exceeds 10m0s"
        elif (timeout_ns, signer) in self._nonces or (timeout_ns, signer) in pending:
            reason = f"failed to add unordered nonce: already used timeout {timeout_ns} for address {signer}"
        if reason is not None:
            raise TxRefused("sdk", 18, f"{reason}: invalid request")

    def _check_signature(self, tx: Transaction, account: Account) -> None:
        key = _key_of(tx) or account.public_key
        if key is None or address_of_key(key) != account.address:
            raise TxRefused("sdk", 8, f"pubKey does not match signer address {account.address}: invalid pubkey")
        if tx.auth.signer_infos[0].mode_info.single.mode != SIGN_MODE_DIRECT:
            raise TxRefused("sdk", 4, "this simulated chain takes SIGN_MODE_DIRECT only: unauthorized")
        if not is_signature(key, tx.sign_doc(self.chain_id, account.number), tx.signatures[0]):
            log = (
                "signature verification failed; please verify account number"
                f" ({account.number}) and chain-id ({self.chain_id}): unauthorized"
            )
            raise TxRefused("sdk", 4, log)

    def _execute_granted(
        self, grantee: str, messages: tuple[PocMessage, ...], height: int, time_ns: int, writes: _Writes
    ) -> None:
        for message in messages:
            message.check(self.rules)
        for message in messages:
            self._check_grant(message, grantee, time_ns)
            try:
                self._execute(message, height, writes)
            except TxRefused as refusal:
                # Which of several it was is not said by number here, as on the chain, which quotes all of it instead.
                log = f"failed to execute message; message {message}: {refusal.log}"
                raise TxRefused(refusal.codespace, refusal.code, log) from refusal

    def _check_grant(self, message: PocMessage, grantee: str, time_ns: int) -> None:
        grant = (message.creator, grantee, message.TYPE_URL)
        if message.creator == grantee:
            return
        if grant not in self.grants:
            raise TxRefused("authz", 2, "failed to get grant with given granter, grantee: authorization not found")
        expires_ns = self.grants[grant]
        if expires_ns is not None and expires_ns < time_ns:
            raise TxRefused("authz", 6, "authorization expired")

    def _execute(self, message: PocMessage, height: int, writes: _Writes) -> None:
        if isinstance(message, SubmitPocBatch) and not message.node_id:
            raise TxRefused("inference", 1145, "node_id is empty: PoC node id is empty")
        if isinstance(message, SubmitSeed):
            writes.put(self.seeds, (message.epoch_index, message.creator), message)
            return
        refusal = self._window_refusal(message, height)
        if refusal is not None:
            raise refusal
        stage = message.poc_stage_start_block_height
        if isinstance(message, SubmitPocBatch):
            batch_key = (stage, message.creator, message.batch_id)
            writes.put(self.batches, batch_key, StoredBatch(message, height))
            return
        key = (stage, message.participant_address, message.creator)
        if key in self.validations and self.rules.second_validation_is_refused:
            raise TxRefused("inference", 1160, f"{message.participant_address} was validated before by this validator")
        writes.put(self.validations, key, message)

    def _window_refusal(self, message: SubmitPocBatch | SubmitPocValidation, height: int) -> TxRefused | None:
        """Say why a message would not be taken at this height, or None."""
        if self.rules.poc_v2:
            return TxRefused("inference", 1161, "deprecated: poc_v2_enabled is true")
        is_batch = isinstance(message, SubmitPocBatch)
        event, params = self.confirmation, self.epochs.params
        wanted = ConfirmationPhase.GENERATION if is_batch else ConfirmationPhase.VALIDATION
        stage: int
        window: Window
        if event is not None and event.phase_at(params, height) is wanted:
            stage = event.trigger_height
            window = event.batch_window(params) if is_batch else event.validation_window(params)
        else:
            epoch = self.epochs.upcoming_at(height)
            if epoch is None:
                return TxRefused("inference", _UPCOMING_EPOCH_NOT_FOUND, "upcoming epoch not found")
            stage = epoch.start
            window = self.epochs.batch_window(stage) if is_batch else self.epochs.validation_window(stage)
        if message.poc_stage_start_block_height != stage:
            said = message.poc_stage_start_block_height
            return TxRefused("inference", 1107, f"start block height is {stage}, not {said}: wrong start block height")
        if height not in window:
            log = f"height {height} is outside [{window.first}, {window.last}]: PoC submission is too late"
            return TxRefused("inference", 1108, log)
        return None


_UPCOMING_EPOCH_NOT_FOUND = 1128
_ABSENT = object()


class _Writes:
    """What a transaction has written so far, so that it can be undone."""

    def __init__(self) -> None:
        self._before: list[tuple[MutableMapping[Any, Any], Any, Any]] = []

    def put(self, store: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        self._before.append((store, key, store.get(key, _ABSENT)))
        store[key] = value

    def undo(self) -> None:
        for store, key, value in reversed(self._before):
            if value is _ABSENT:
                del store[key]
            else:
                store[key] = value


def _nonce_of(tx: Transaction, signer: str) -> Nonce:
    return (tx.timeout_ns or 0, signer)


def _key_of(tx: Transaction) -> bytes | None:
    packed = tx.auth.signer_infos[0].public_key
    if packed is None:
        return None
    if packed.type_url != PUBLIC_KEY_URL:
        raise TxRefused("sdk", 8, f"{packed.type_url} is not simulated: invalid pubkey")
    try:
        return decode(PublicKey, packed.value).key
    except WireError as error:
        raise TxRefused("sdk", 2, f"{error}: tx parse error") from error
