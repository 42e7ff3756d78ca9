"""What is checked of a transaction as a whole, when it comes in and again in its block: signer, time, signature, fee.

Facts: docs/protocol/chain.md, 'Unordered transactions' and 'Accounts'. The order is that of the SDK's decorators.
"""

from __future__ import annotations

from collections.abc import Collection

from dapi.simulator.chain.addresses import address_of_key
from dapi.simulator.chain.rules import TxRefused, check
from dapi.simulator.chain.state import Account, Nonce, StateView
from dapi.simulator.chain.transactions import (
    PUBLIC_KEY_URL,
    SIGN_MODE_DIRECT,
    PublicKey,
    Transaction,
    is_signature,
)
from dapi.simulator.chain.wire import WireError, decode

_MAX_TTL_NS = 10 * 60 * 1_000_000_000


def check_basic(view: StateView, tx: Transaction) -> None:
    """Check what needs no state, of the outermost messages; raises TxRefused."""
    check(bool(tx.messages), "must contain at least one message")
    limit = view.rules.max_exec_messages
    if limit is not None and any(len(messages) > limit for messages in tx.granted):
        raise TxRefused("sdk", 2, "call limit exceeded: tx parse error")
    for message in tx.messages:
        message.check(view.rules)


def check_signed(
    view: StateView, tx: Transaction, time_ns: int, pending: Collection[Nonce], *, is_recheck: bool = False
) -> Account:
    """Check all that concerns signer and time; return the signer's account, or raise TxRefused.

    ``time_ns`` is the time of the latest block, or of the one that the transaction is in; ``pending`` are the nonces of
    what is in the mempool. A recheck looks at no signature again.
    """
    _check_gas(view, tx)
    timeout_ns = tx.timeout_ns
    if tx.body.timeout_height and view.height > tx.body.timeout_height:
        raise TxRefused("sdk", 30, f"block height: {view.height}, timeout: {tx.body.timeout_height}: tx timeout height")
    if timeout_ns is not None and time_ns > timeout_ns:
        raise TxRefused("sdk", 42, f"block time: {time_ns} ns, timeout: {timeout_ns} ns: tx timeout")
    signer = tx.signer
    if signer not in view.accounts:
        raise TxRefused("sdk", 9, f"fee payer address: {signer} does not exist: unknown address")
    if not len(tx.signers) == len(tx.auth.signer_infos) == len(tx.signatures) == 1:
        raise TxRefused("sdk", 4, "wrong number of signers; expected 1: unauthorized")
    _check_unordered(view, tx, signer, time_ns, pending)
    if not is_recheck:
        _check_signature(view, tx, view.accounts[signer])
    return view.accounts[signer]


def key_of(tx: Transaction) -> bytes | None:
    """Return the key that a transaction shows, None when it shows none."""
    packed = tx.auth.signer_infos[0].public_key
    if packed is None:
        return None
    if packed.type_url != PUBLIC_KEY_URL:
        raise TxRefused("sdk", 8, f"{packed.type_url} is not simulated: invalid pubkey")
    try:
        return decode(PublicKey, packed.value).key
    except WireError as error:
        raise TxRefused("sdk", 2, f"{error}: tx parse error") from error


def check_fee(tx: Transaction, minimum_gas_price: float) -> None:
    """Check the fee against what a node's operator asks per gas; raises TxRefused."""
    required = round(minimum_gas_price * tx.auth.fee.gas_limit)
    paid = sum(int(coin.amount) for coin in tx.auth.fee.amount)
    if paid < required:
        offered = f"{paid}ngonka" if paid else ""
        raise TxRefused("sdk", 13, f"insufficient fees; got: {offered} required: {required}ngonka: insufficient fee")


def _check_gas(view: StateView, tx: Transaction) -> None:
    gas_limit, max_gas = tx.auth.fee.gas_limit, view.rules.max_gas
    if gas_limit == 0:
        raise TxRefused("sdk", 41, "must provide positive gas: invalid gas limit")
    if max_gas is not None and gas_limit > max_gas:
        raise TxRefused("sdk", 41, f"tx gas limit {gas_limit} exceeds block max gas {max_gas}: invalid gas limit")


def _check_unordered(view: StateView, tx: Transaction, signer: str, time_ns: int, pending: Collection[Nonce]) -> None:
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
    elif tx.nonce in view.nonces or tx.nonce in pending:
        reason = f"failed to add unordered nonce: already used timeout {timeout_ns} for address {signer}"
    if reason is not None:
        raise TxRefused("sdk", 18, f"{reason}: invalid request")


def _check_signature(view: StateView, tx: Transaction, account: Account) -> None:
    key = key_of(tx) or account.public_key
    if key is None or address_of_key(key) != account.address:
        raise TxRefused("sdk", 8, f"pubKey does not match signer address {account.address}: invalid pubkey")
    if tx.auth.signer_infos[0].mode_info.single.mode != SIGN_MODE_DIRECT:
        raise TxRefused("sdk", 4, "this simulated chain takes SIGN_MODE_DIRECT only: unauthorized")
    if not is_signature(key, tx.sign_doc(view.chain_id, account.number), tx.signatures[0]):
        log = (
            "signature verification failed; please verify account number"
            f" ({account.number}) and chain-id ({view.chain_id}): unauthorized"
        )
        raise TxRefused("sdk", 4, log)
