"""What a block does with its transactions: it executes all messages of one, or none.

Facts: docs/protocol/chain.md, 'Checks of messages', 'Authz', 'Hardware nodes'; docs/protocol/measured.md, 'Transactions
on a real chain'.
"""

from __future__ import annotations

import msgspec

from dapi.simulator.chain.ante import check_basic, check_signed, key_of
from dapi.simulator.chain.claims import claim
from dapi.simulator.chain.epochs import ConfirmationPhase, Window
from dapi.simulator.chain.messages import (
    ClaimRewards,
    Exec,
    HostMessage,
    SubmitHardwareDiff,
    SubmitPocBatch,
    SubmitPocValidation,
    SubmitSeed,
)
from dapi.simulator.chain.rules import Rules, TxRefused
from dapi.simulator.chain.state import ChainState, StateView, StoredBatch
from dapi.simulator.chain.stores import Writes
from dapi.simulator.chain.transactions import Transaction
from dapi.simulator.chain.wire import any_field, message_field

UPCOMING_EPOCH_NOT_FOUND = 1128
_GAS_PER_BYTE, _GAS_OF_SIGNATURE, _GAS_PER_MESSAGE = 10, 1000, 13_000

PocMessage = SubmitPocBatch | SubmitPocValidation


def deliver_tx(state: ChainState, tx: Transaction) -> bytes:
    """Execute a transaction in the block that has begun; return its data (TxMsgData).

    Raises TxRefused, and has then done nothing of it; but a transaction whose messages fail has used its nonce.
    """
    now = state.at(state.height)
    check_basic(now, tx)
    account = check_signed(now, tx, now.time_ns, ())
    refusal = state.refuse_tx(tx)
    if refusal is not None:
        raise refusal
    state.nonces[tx.nonce] = True
    key = key_of(tx) or account.public_key
    state.accounts[account.address] = msgspec.structs.replace(account, public_key=key)
    writes = Writes()
    responses = b""
    for index, (message, granted) in enumerate(zip(tx.messages, tx.granted, strict=True)):
        try:
            if isinstance(message, Exec):
                response = _execute_granted(state, message.grantee, granted, writes)
            else:
                response = _execute(state, message, writes)
        except TxRefused as error:
            writes.undo()
            log = f"failed to execute message; message index: {index}: {error.log}"
            raise TxRefused(error.codespace, error.code, log) from error
        responses += any_field(2, f"{message.TYPE_URL}Response", response)
    limit, used = tx.auth.fee.gas_limit, gas_used(tx)
    if used > limit:
        writes.undo()
        log = f"out of gas in location: WritePerByte; gasWanted: {limit}, gasUsed: {used}: out of gas"
        raise TxRefused("sdk", 11, log)
    return responses


def gas_used(tx: Transaction) -> int:
    """Return about the gas that a transaction uses on the real chain: for its bytes, its signature and its messages."""
    return _GAS_PER_BYTE * len(tx.raw) + _GAS_OF_SIGNATURE + _GAS_PER_MESSAGE * sum(1 for _ in tx.host_messages())


def window_refusal(view: StateView, message: PocMessage, height: int) -> TxRefused | None:
    """Say why a batch or a validation would not be taken at this height, or None."""
    is_batch = isinstance(message, SubmitPocBatch)
    if (refusal := refusal_of_v2(view.rules, message)) is not None:
        return refusal
    event, params = view.confirmation, view.epochs.params
    wanted = ConfirmationPhase.GENERATION if is_batch else ConfirmationPhase.VALIDATION
    stage: int
    window: Window
    if event is not None and event.phase_at(params, height) is wanted:
        stage = event.trigger_height
        window = event.batch_window(params) if is_batch else event.validation_window(params)
    else:
        epoch = view.epochs.upcoming_at(height)
        if epoch is None:
            return TxRefused("inference", UPCOMING_EPOCH_NOT_FOUND, "upcoming epoch not found")
        stage = epoch.start
        window = view.epochs.batch_window(stage) if is_batch else view.epochs.validation_window(stage)
    if message.poc_stage_start_block_height != stage:
        said = message.poc_stage_start_block_height
        return TxRefused("inference", 1107, f"start block height is {stage}, not {said}: wrong start block height")
    if height not in window:
        log = f"height {height} is outside [{window.first}, {window.last}]: PoC submission is too late"
        return TxRefused("inference", 1108, log)
    return None


def refusal_of_v2(rules: Rules, message: PocMessage) -> TxRefused | None:
    """Say how a chain with PoC v2 refuses a message of v1, whatever its height; None on a chain without."""
    if not rules.poc_v2:
        return None
    if isinstance(message, SubmitPocBatch):
        return TxRefused("inference", 1161, "deprecated: poc_v2_enabled is true")
    return TxRefused("sdk", 2, f"unable to resolve type URL {message.TYPE_URL}: tx parse error")


def _execute_granted(state: ChainState, grantee: str, messages: tuple[HostMessage, ...], writes: Writes) -> bytes:
    """Execute what an Exec holds; return its MsgExecResponse: the responses, one level deeper."""
    for message in messages:
        message.check(state.rules)
    results = b""
    for message in messages:
        _check_grant(state, message, grantee)
        try:
            results += message_field(1, _execute(state, message, writes))
        except TxRefused as refusal:
            # Which of several it was is not said by number here, as on the chain, which quotes all of it instead.
            log = f"failed to execute message; message {message}: {refusal.log}"
            raise TxRefused(refusal.codespace, refusal.code, log) from refusal
    return results


def _check_grant(state: ChainState, message: HostMessage, grantee: str) -> None:
    grant = (message.creator, grantee, message.TYPE_URL)
    if message.creator == grantee:
        return
    if grant not in state.grants:
        raise TxRefused("authz", 2, "failed to get grant with given granter, grantee: authorization not found")
    expires_ns = state.grants[grant]
    if expires_ns is not None and expires_ns < state.at(state.height).time_ns:
        raise TxRefused("authz", 6, "authorization expired")


def _execute(state: ChainState, message: HostMessage, writes: Writes) -> bytes:
    """Execute one message; return its response."""
    refusal = state.refuse_message(message)
    if refusal is not None:
        raise refusal
    match message:
        case SubmitPocBatch() | SubmitPocValidation():
            _execute_poc(state, message, writes)
        case SubmitSeed():
            writes.put(state.seeds, (message.epoch_index, message.creator), message)
        case SubmitHardwareDiff():
            _execute_hardware_diff(state, message, writes)
        case ClaimRewards():
            return claim(state, message, writes)
    return b""


def _execute_poc(state: ChainState, message: PocMessage, writes: Writes) -> None:
    if isinstance(message, SubmitPocBatch) and not message.node_id:
        raise TxRefused("inference", 1145, "node_id is empty: PoC node id is empty")
    refusal = window_refusal(state.at(state.height), message, state.height)
    if refusal is not None:
        raise refusal
    stage = message.poc_stage_start_block_height
    if isinstance(message, SubmitPocBatch):
        batch_key = (stage, message.creator, message.batch_id)
        writes.put(state.batches, batch_key, StoredBatch(message, state.height))
        return
    key = (stage, message.participant_address, message.creator)
    if key in state.validations and state.rules.second_validation_is_refused:
        raise TxRefused("inference", 1160, f"{message.participant_address} was validated before by this validator")
    writes.put(state.validations, key, message)


def _execute_hardware_diff(state: ChainState, message: SubmitHardwareDiff, writes: Writes) -> None:
    if message.creator not in state.participants:
        raise TxRefused("inference", 1103, "participant not found")
    local_ids = [node.local_id for node in (*message.new_or_modified, *message.removed)]
    if len(local_ids) > len(set(local_ids)):
        raise TxRefused("inference", 1140, "duplicate node id")
    if any(model not in state.models for node in message.new_or_modified for model in node.models):
        raise TxRefused("inference", 1134, "invalid model")
    for node in message.removed:
        if (message.creator, node.local_id) in state.hardware_nodes:
            writes.remove(state.hardware_nodes, (message.creator, node.local_id))
    for node in message.new_or_modified:
        writes.put(state.hardware_nodes, (message.creator, node.local_id), node)
