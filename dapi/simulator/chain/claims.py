"""MsgClaimRewards: what is owed is paid once, in its time, to who knows the seed.

Facts: docs/protocol/chain.md, 'Claims' and 'Seeds'. A claim that is refused has code 0 all the same: its response says
so.
"""

from __future__ import annotations

from dapi.simulator.chain.messages import ClaimRewards
from dapi.simulator.chain.state import ChainState, SettleAmount
from dapi.simulator.chain.stores import Writes
from dapi.simulator.chain.transactions import is_signature
from dapi.simulator.chain.wire import bytes_field, varint_field


def claim(state: ChainState, message: ClaimRewards, writes: Writes) -> bytes:
    """Pay what is claimed, or nothing; return the MsgClaimRewardsResponse."""
    owed = state.settle_amounts.get(message.creator)
    refusal = _refusal(state, message, owed)
    if owed is None or refusal is not None:
        return bytes_field(2, refusal or "")
    writes.remove(state.settle_amounts, message.creator)
    writes.put(state.balances, message.creator, state.balances.get(message.creator, 0) + owed.reward_coins)
    return varint_field(1, owed.reward_coins) + bytes_field(2, "Rewards claimed successfully")


def _refusal(state: ChainState, message: ClaimRewards, owed: SettleAmount | None) -> str | None:
    if message.epoch_index != state.epochs.effective_at(state.height) - 1:
        return "Can't validate claim, current epoch group does not match previous epoch"
    if owed is None:
        return "No rewards for this address"
    if owed.epoch_index != message.epoch_index:
        return "No rewards for this block height"
    if not _is_seed(state, message, owed):
        return "Seed signature validation failed"
    if message.creator in state.missed_inference_validations:
        return "Inference validation missed significantly"
    return None


def _is_seed(state: ChainState, message: ClaimRewards, owed: SettleAmount) -> bool:
    """Whether the seed is what the participant, or anybody it granted something, signed for that epoch."""
    seed = (message.seed & (1 << 64) - 1).to_bytes(8, "big")
    signers = {message.creator, *(grantee for granter, grantee, _ in state.grants if granter == message.creator)}
    keys = [state.accounts[signer].public_key for signer in signers if signer in state.accounts]
    try:
        signature = bytes.fromhex(owed.seed_signature)
    except ValueError:
        return False
    return any(key is not None and is_signature(key, seed, signature) for key in keys)
