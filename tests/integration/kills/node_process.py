"""A simulated ML node that writes down what it made, and what it was told that it may drop.

``python -m tests.integration.kills.node_process FOLDER NAME PORT [no-websocket]``: the batches are in ``FOLDER/NAME``.
While there is ``FOLDER/quiet``, nothing is generated. With ``FOLDER/die-NAME`` it kills itself while it delivers a
batch, at a random moment from just before the batch leaves until after its ack.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.task import LoopingCall

from dapi.messages import ProofBatch, content_id
from dapi.simulator.ml_node.ledger import BatchEntry, Ledger
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.integration.kills.journal import Journal

_BATCHES_PER_WALK = 4
_WALK_SECONDS = 0.1
_LOOK_SECONDS = 0.05
# About as long as an ack takes.
_DYING_SECONDS = 0.01


class Diary:
    """Looks at the ledger after each event, and writes down what is new; ``is_delivering`` is whether it offers one."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self._ledger = ledger
        self._journal = journal
        self._made = 0
        self._undelivered: list[BatchEntry] = []
        # It is never true, so that it is looked at for ever.
        ledger.when(self._look)

    @property
    def is_delivering(self) -> bool:
        """Whether a batch is under way."""
        return any(entry.attempts and entry.attempts[-1].outcome is None for entry in self._undelivered)

    def _look(self) -> bool:
        made = self._ledger.counts["made"]
        for entry in reversed(list(islice(reversed(self._ledger.batches), made - self._made))):
            self._undelivered.append(entry)
            self._write("made", entry)
        self._made = made
        for entry in [each for each in self._undelivered if each.delivered_via is not None]:
            self._undelivered.remove(entry)
            self._write("delivered", entry)
        return False

    def _write(self, event: str, entry: BatchEntry) -> None:
        is_batch = entry.kind == "generated"
        batch_id = content_id(msgspec.convert(entry.batch, ProofBatch)) if is_batch else ""
        self._journal.write(event=event, kind=entry.kind, height=entry.batch["block_height"], id=batch_id)


def main(folder: str, name: str, port: str, websocket: str = "websocket") -> None:
    """Run until the process is killed."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    settings = quick_settings(walk_seconds=_WALK_SECONDS, websocket=websocket == "websocket")
    node = SimulatedMLNode(reactor, random.Random(), name=name, settings=settings, port=int(port))
    journal = Journal(Path(folder) / name)
    journal.write(event="started")
    diary = Diary(node.ledger, journal)
    quiet, die = Path(folder) / "quiet", Path(folder) / f"die-{name}"

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def look() -> None:
        settings.batches_per_walk = 0 if quiet.exists() else _BATCHES_PER_WALK

    def die_while_delivering() -> bool:
        if diary.is_delivering and die.exists():
            die.unlink()
            reactor.callLater(random.uniform(0, _DYING_SECONDS), kill)
        return False

    def start() -> None:
        node.startService()
        node.ledger.when(die_while_delivering)
        LoopingCall(look).start(_LOOK_SECONDS)
        print(f"listening on {node.port}", flush=True)

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
