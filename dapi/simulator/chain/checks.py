"""CheckTx: what keeps a transaction out of a mempool, and takes it out again after a block."""

from __future__ import annotations

from collections.abc import Collection

from dapi.simulator.chain.ante import check_basic, check_fee, check_signed
from dapi.simulator.chain.execution import UPCOMING_EPOCH_NOT_FOUND, refusal_of_v2, window_refusal
from dapi.simulator.chain.mempool import Mempool
from dapi.simulator.chain.messages import SubmitPocBatch, SubmitPocValidation
from dapi.simulator.chain.rules import TxRefused
from dapi.simulator.chain.state import ChainState, Nonce, StateView
from dapi.simulator.chain.transactions import Transaction


def check_tx(
    state: ChainState,
    view: StateView,
    tx: Transaction,
    pending: Collection[Nonce],
    *,
    minimum_gas_price: float = 0.0,
    is_recheck: bool = False,
) -> None:
    """Check a transaction against the state that ``view`` shows; raises TxRefused.

    ``pending`` are the nonces of what is in the mempool, ``minimum_gas_price`` is what the node's operator asks.
    """
    check_basic(view, tx)
    check_fee(tx, minimum_gas_price)
    check_signed(view, tx, view.time_ns, pending, is_recheck=is_recheck)
    refusal = state.refuse_tx(tx)
    if refusal is not None:
        raise refusal
    for message in tx.host_messages():
        if isinstance(message, SubmitPocBatch | SubmitPocValidation):
            refusal = refusal_of_v2(view.rules, message)
            if refusal is None and view.rules.windows_in_check_tx:
                refusal = window_refusal(view, message, view.height)
            if refusal is not None and refusal.code != UPCOMING_EPOCH_NOT_FOUND:
                raise refusal


def recheck(state: ChainState, view: StateView, mempool: Mempool) -> None:
    """Drop from a mempool what a new block has made impossible, as CometBFT does after each."""
    kept: set[Nonce] = set()
    for tx in mempool.waiting():
        try:
            check_tx(state, view, tx, kept, is_recheck=True)
        except TxRefused:
            mempool.forget(tx.hash)
        else:
            kept.add(tx.nonce)
