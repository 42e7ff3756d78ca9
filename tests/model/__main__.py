"""Plays the model test with random seeds for some minutes: ``python -m tests.model [MINUTES]``."""

from __future__ import annotations

import sys
import time

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import DapiMachine
from tests.model.test_model import STEPS

ROUND = settings(STEPS, derandomize=False, phases=[Phase.generate, Phase.shrink], print_blob=True)


def play(minutes: float) -> None:
    """Play rounds of 10,000 steps until the time is over; raises what breaks a promise, made as small as may be."""
    end = time.monotonic() + 60 * minutes
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        run_state_machine_as_test(DapiMachine, settings=ROUND)
        rounds += 1
        print(f"{rounds * 10_000} steps broke no promise", flush=True)


if __name__ == "__main__":
    play(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
