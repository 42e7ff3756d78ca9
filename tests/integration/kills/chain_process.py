"""A chain of one validator, which keeps its blocks as a real one does, and loses its mempool when it is killed.

``python -m tests.integration.kills.chain_process FOLDER PORT``: the blocks are in ``FOLDER/blocks``. Seconds from one
block to the next are read from ``FOLDER/pace``. With ``FOLDER/die`` it kills itself once it has checked a transaction
that is in no block yet.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from twisted.internet.task import LoopingCall

from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.transactions import decode_transaction
from tests.integration.kills.journal import Journal, Reader

SECRET = b"\1" * 32
FIRST_POC = 6
PARAMS = EpochParams(
    epoch_length=110,
    poc_stage_duration=40,
    poc_exchange_duration=20,
    poc_validation_delay=20,
    poc_validation_duration=20,
)
_FIRST_TIME_NS = 1_700_000_000 * 10**9
_LOOK_SECONDS = 0.01


class KeptChain:
    """A simulated chain that is made of the blocks in a journal; ``catch_up`` takes over those that are new."""

    def __init__(self, reactor: Any, folder: Path, now_ns: Any, port: int = 0) -> None:
        self._times = deque([_FIRST_TIME_NS])
        self._now_ns = now_ns
        self._reader = Reader(folder / "blocks")
        self.simulated = SimulatedChain(
            reactor,
            random.Random(0),
            now_ns=lambda: self._times.popleft() if self._times else self._now_ns(),
            epochs=Epochs(FIRST_POC, PARAMS),
            block_seconds=None,
            port=port,
        )
        self.participant = self.simulated.add_account(PrivateKey(SECRET).public_key.format()).address
        self.catch_up()

    def catch_up(self) -> None:
        """Make the blocks that are new in the journal; they are the same, or this raises ValueError."""
        for block in self._reader.new():
            for raw in block["txs"]:
                self.simulated.blockchain.mempool.put(decode_transaction(bytes.fromhex(raw)))
            self._times.append(block["time_ns"])
            made = self.simulated.produce_block()
            if (made.hash, len(made.records)) != (block["hash"], len(block["txs"])):
                raise ValueError(f"block {made.height} is not what it was")


class Validator:
    """Makes blocks, and writes each of them down before anybody hears of it."""

    def __init__(self, reactor: Any, folder: Path, port: int) -> None:
        self._reactor = reactor
        self._folder = folder
        self._chain = KeptChain(reactor, folder, self._time_ns, port).simulated
        self._journal = Journal(folder / "blocks")
        self._made_at = reactor.seconds()

    def start(self) -> None:
        """Open the port, and say so."""
        self._chain.startService()
        LoopingCall(self._look).start(_LOOK_SECONDS, now=False)
        print(f"listening on {self._chain.port}", flush=True)

    def _time_ns(self) -> int:
        return int(self._reactor.seconds() * 10**9)

    def _look(self) -> None:
        if len(self._chain.blockchain.mempool) and (self._folder / "die").exists():
            (self._folder / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._reactor.seconds() >= self._made_at + float((self._folder / "pace").read_text()):
            self._made_at = self._reactor.seconds()
            # What is told of it leaves in the reactor's next turn.
            block = self._chain.produce_block()
            txs = [record.tx.raw.hex() for record in block.records]
            self._journal.write(time_ns=block.time_ns, hash=block.hash, txs=txs)


def main(folder: str, port: str) -> None:
    """Run until the process is killed."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reactor.callWhenRunning(Validator(reactor, Path(folder), int(port)).start)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
