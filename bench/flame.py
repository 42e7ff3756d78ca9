"""Draws where the intake's time goes: ``python -m bench.flame`` writes a flame graph for each size of a batch.

py-spy samples dapi, which stores batches of 16 outstanding ones as in ``bench.intake``, by thread; the pictures are
``build/profile/intake-NONCES.svg``. Time below the start of the program belongs to no batch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.comparison import NONCES, own_command
from bench.load import Load
from bench.processes import SENDERS_CORES, Receiver, folder, on
from bench.sender import Sender

FOLDER = Path(__file__).parent.parent / "build" / "profile"
_PY_SPY = Path(sys.executable).parent / "py-spy"
_OUTSTANDING = 16
_START_SECONDS = 2


def draw(nonces: int, seconds: int, rate: int) -> Path:
    """Draw the intake of batches of this size; return the picture's path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture = FOLDER / f"intake-{nonces}.svg"
    picture.unlink(missing_ok=True)
    record = [str(_PY_SPY), "record", "--threads", "--output", str(picture), "--rate", str(rate)]
    record += ["--duration", str(seconds + _START_SECONDS), "--"]
    with (
        on(SENDERS_CORES),
        folder() as where,
        Receiver.client("dapi", [*record, *own_command("dapi", where, "{port}")]) as receiver,
    ):
        sender = Sender(Load(nonces), [receiver])
        try:
            while True:
                sender.drive(receiver, 1.0, _OUTSTANDING)
        except (EOFError, ConnectionError):
            # py-spy has ended what it watched.
            receiver.wait()
    if not picture.exists():
        raise SystemExit("py-spy drew nothing: see what it wrote above")
    return picture


def main() -> None:
    """Draw a picture for each size, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nonces", type=int, nargs="+", default=NONCES, help="sizes of a batch")
    parser.add_argument("--seconds", type=int, default=10, help="for each size")
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    arguments = parser.parse_args()
    for nonces in arguments.nonces:
        print(draw(nonces, arguments.seconds, arguments.rate), flush=True)


if __name__ == "__main__":
    main()
