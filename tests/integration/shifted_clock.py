"""Sets the wall clock of a process: as its ``sitecustomize``, it adds the seconds in the file ``CLOCK_SHIFT`` to it."""

from __future__ import annotations

import os
import time
from pathlib import Path

_time, _time_ns = time.time, time.time_ns


def _shift() -> float:
    return float(Path(os.environ["CLOCK_SHIFT"]).read_text())


if "CLOCK_SHIFT" in os.environ:
    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: _time_ns() + int(_shift() * 10**9)
