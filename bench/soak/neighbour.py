"""Another participant, so that there is something to validate, and somebody with weight who judges dapi's batches."""

from __future__ import annotations

import msgspec
from coincurve import PrivateKey

from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.messages import HardwareNode, SubmitPocBatch, SubmitPocValidation, SubmitSeed
from dapi.simulator.chain.state import StoredBatch
from dapi.simulator.ml_node.work import distance

_NODE = "neighbour1"
_NONCES = 20
_MAX_DISTANCE = 1.3


class Neighbour:
    """Writes into the chain's stores what a host sends: no software of its own is needed for that."""

    def __init__(self, chain: SimulatedChain, participant: str, secret: bytes) -> None:
        self._chain = chain
        self._participant = participant
        self._public_key = PrivateKey(secret).public_key.format()
        self.address = chain.add_account(self._public_key, genesis_weight=1).address
        show_key(chain, self.address, self._public_key)
        chain.state.hardware_nodes[self.address, _NODE] = HardwareNode(_NODE, 1, ("simulated",))

    def block_made(self, height: int) -> None:
        """Send what is due in a stage after this block."""
        epochs, state = self._chain.state.epochs, self._chain.state
        epoch = epochs.after(height)
        if epoch.index and height == epoch.start + 1:
            state.seeds[epoch.index, self.address] = SubmitSeed(self.address, epoch.index, "00")
            batch = self._batch(epoch.start)
            state.batches[epoch.start, self.address, batch.batch_id] = StoredBatch(batch, height)
        elif epoch.index and height == epochs.validation_window(epoch.start).first:
            for participant in (self.address, self._participant):
                if any(key[:2] == (epoch.start, participant) for key in state.batches):
                    verdict = SubmitPocValidation(self.address, participant, epoch.start)
                    state.validations[epoch.start, participant, self.address] = verdict

    def _batch(self, start: int) -> SubmitPocBatch:
        block_hash = self._chain.blockchain.blocks[start].hash
        dist = {nonce: distance(self._public_key.hex(), block_hash, start, nonce) for nonce in range(3 * _NONCES)}
        nonces = tuple(nonce for nonce in dist if dist[nonce] < _MAX_DISTANCE)[:_NONCES]
        return SubmitPocBatch(
            self.address, start, f"neighbour-{start}", nonces, tuple(dist[nonce] for nonce in nonces), _NODE
        )


def show_key(chain: SimulatedChain, address: str, public_key: bytes) -> None:
    """Have the chain know an account's key, as it does once a participant has registered itself."""
    account = chain.state.accounts[address]
    chain.state.accounts[address] = msgspec.structs.replace(account, public_key=public_key)
