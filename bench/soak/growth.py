"""Whether dapi's memory and open files grow from epoch to epoch, as the system tells it of the process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

# The first epoch fills what is filled once: caches, pools, the interpreter's own memory.
_WARM_UP_EPOCHS = 1
# What an epoch may differ from another by, as what is freed is not always given back.
_MEMORY_FRACTION, _MEMORY_KIB = 0.25, 16 * 1024
_FILES = 10


class Use(NamedTuple):
    """What a process has at a height: resident memory, and open files, sockets included."""

    height: int
    rss_kib: int
    files: int


_NOTHING = Use(0, 0, 0)


def use_of(pid: int, height: int) -> Use | None:
    """Return what a process has now; None when it is gone, or where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        (rss,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
        return Use(height, rss, len(os.listdir(f"/proc/{pid}/fd")))
    except (OSError, ValueError):
        return None


def grown(uses: Sequence[Use]) -> Iterable[str]:
    """Say what has grown from the first epoch after the warm-up to the last; nothing is said of fewer than three.

    Each is of the same place in its epoch, when no proof of compute runs.
    """
    yield from memory_grown(uses)
    yield from files_grown(uses)


def memory_grown(uses: Sequence[Use]) -> Iterable[str]:
    """Say whether memory has."""
    first, last = _ends(uses)
    if last.rss_kib > first.rss_kib * (1 + _MEMORY_FRACTION) + _MEMORY_KIB:
        yield f"memory grew from {first.rss_kib // 1024} to {last.rss_kib // 1024} MiB"


def files_grown(uses: Sequence[Use]) -> Iterable[str]:
    """Say whether open files have, calls to nodes among them: on a busy machine these may be under way."""
    first, last = _ends(uses)
    if last.files > first.files + _FILES:
        yield f"open files grew from {first.files} to {last.files}"


def _ends(uses: Sequence[Use]) -> tuple[Use, Use]:
    """Return what is compared: the same twice, where there is too little to say anything."""
    if len(uses) < _WARM_UP_EPOCHS + 2:
        return _NOTHING, _NOTHING
    return uses[_WARM_UP_EPOCHS], uses[-1]


def lines(uses: Sequence[Use]) -> Iterable[str]:
    """Yield the report, line by line."""
    if uses:
        yield f"after each epoch {', '.join(str(use.rss_kib // 1024) for use in uses)} MiB in memory"
        yield f"  open files    {', '.join(str(use.files) for use in uses)}"
