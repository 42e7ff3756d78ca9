"""What the process asks of the C library's memory."""

from __future__ import annotations

import ctypes
from typing import Final

from dapi.messages.sizes import MIB

# Of <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_LARGE_BYTES: Final = MIB
_KEPT_BYTES: Final = 8 * MIB
# By itself, glibc gives each thread its own, up to eight for each processor.
_ARENAS: Final = 1


def save_memory() -> bool:
    """Have each block of 1 MiB or more go back to the system as soon as it is free; return whether that can be had.

    By itself, glibc puts blocks of up to 32 MiB among the small ones once it has seen some freed. There the bodies that
    grow side by side leave gaps: these took as much again as the bodies. And all threads share one arena: each of them
    had gaps of its own, which grew by 11 MB in each large stage of PoC v2.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        # Not glibc.
        return False
    # With the first one alone, glibc would ask the system for each small block at the end of its memory anew.
    wanted = ((_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_ARENA_MAX, _ARENAS))
    return all(mallopt(*each) for each in wanted)
