"""What a soak is made of, and how long it takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import msgspec

from dapi.simulator.chain.epochs import EpochParams, Epochs, Window

FAULTS = ("stalls", "node", "stale", "grant")
"""Stalls of the chain; a first chain node that fails; stale batches; a grant that is missing."""

PARAMS = EpochParams(
    epoch_length=48,
    poc_stage_duration=20,
    poc_exchange_duration=5,
    poc_validation_delay=6,
    poc_validation_duration=12,
)
FIRST_POC = 6
REAL_BLOCK_SECONDS = 5.0
# What stalls add, in blocks an epoch, on average.
_STALLED_BLOCKS = 14


class SoakSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``batch_seconds`` is from one batch of a node to its next; ``http_nodes`` of the nodes have no WebSocket.

    ``grant_missing`` is the part of each generation (``grant_by`` stage) or of the whole run (``run``) at whose
    beginning the key has no grant. ``chances`` are the blocks that a window needs to allow a batch.
    """

    nodes: int = 200
    http_nodes: int = 20
    epochs: int = 10
    nonces: int = 100
    block_seconds: float = REAL_BLOCK_SECONDS
    batch_seconds: float = REAL_BLOCK_SECONDS
    faults: frozenset[str] = frozenset(FAULTS)
    grant_by: str = "stage"
    grant_missing: float = 1 / 3
    stale_fraction: float = 0.05
    is_index_off: bool = False
    chances: int = 5
    seed: int = 1

    @property
    def time_epochs(self) -> Epochs:
        """The epochs of the chain."""
        return Epochs(FIRST_POC, PARAMS)

    @property
    def starts(self) -> list[int]:
        """The heights at which the PoC of each epoch starts; one more than epochs, in which the last one is paid."""
        return [FIRST_POC + PARAMS.epoch_length * number for number in range(self.epochs + 1)]

    @property
    def last_height(self) -> int:
        """Where the soak ends: a claim for the last epoch had its chances."""
        # Before the next PoC, of which nothing is counted.
        return min(self.claim_window(self.epochs).first + 2 * self.chances, self.starts[-1] + PARAMS.epoch_length - 1)

    def claim_window(self, epoch: int) -> Window:
        """Return the heights at which the chain pays for an epoch, cut off at the end of the soak."""
        settled = self.time_epochs.set_new_validators(self.starts[epoch])
        return Window(settled + 1, settled + PARAMS.epoch_length)

    @property
    def expected_seconds(self) -> float:
        """How long it takes, about."""
        stalled = _STALLED_BLOCKS * (self.epochs + 1) if "stalls" in self.faults else 0
        return (self.last_height + stalled) * self.block_seconds


def parse(arguments: Sequence[str] | None, description: str | None) -> tuple[SoakSettings, str | None]:
    """Read the command line; return the settings, and the folder to keep dapi's log and database in."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, SoakSettings()
    add("--nodes", type=int, default=default.nodes)
    add("--http-nodes", type=int, help="so many of them have no WebSocket (default: a tenth)")
    add("--epochs", type=int, default=default.epochs)
    add("--nonces", type=int, default=default.nonces, help="in a batch")
    add("--block-seconds", type=float, default=default.block_seconds)
    add("--batch-seconds", type=float, help="from one batch of a node to its next (default: as long as a block)")
    add("--duration", type=float, help="seconds for all: computes the seconds of blocks and batches")
    add("--faults", default=",".join(FAULTS), help="which of %(default)s, separated by commas; none")
    add("--grant", choices=("stage", "run"), default="stage", help="missing in the first third of each, or of the run")
    add("--index", choices=("on", "off"), help="whether chain nodes look transactions up (default: by the seed)")
    add("--chances", type=int, default=default.chances, help="blocks that a window needs to allow a batch")
    add("--seed", type=int, default=default.seed, help="of all chance; the index is off with an even one")
    add(
        "--keep",
        metavar="FOLDER",
        help="for dapi's log and database, and a log of the faults; otherwise a temporary one",
    )
    options = parser.parse_args(arguments)
    faults = frozenset(options.faults.split(",")) - {"none", ""}
    if not faults <= set(FAULTS):
        parser.error(f"no such fault: {', '.join(faults - set(FAULTS))}")
    settings = SoakSettings(
        nodes=options.nodes,
        http_nodes=options.nodes // 10 if options.http_nodes is None else options.http_nodes,
        epochs=options.epochs,
        nonces=options.nonces,
        block_seconds=options.block_seconds,
        batch_seconds=options.batch_seconds or options.block_seconds,
        faults=faults,
        grant_by=options.grant,
        is_index_off=options.seed % 2 == 0 if options.index is None else options.index == "off",
        chances=options.chances,
        seed=options.seed,
    )
    if options.duration is not None:
        seconds = options.duration * settings.block_seconds / settings.expected_seconds
        settings = msgspec.structs.replace(settings, block_seconds=seconds, batch_seconds=seconds)
    return settings, options.keep
