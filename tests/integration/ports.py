"""Ports that are the same over a restart."""

from __future__ import annotations

import functools
import itertools
import random
import socket
from collections.abc import Iterator

# Below those that systems give to whoever asks for any: nobody else has it while the one that is restarted is away.
_FIRST, _END = 10_000, 20_000
# Of one process; more than a test needs at once.
_BLOCK = 100


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, and which no other process of tests is given.

    This process is given it again only after dozens of others.
    """
    return next(_free_ports())


@functools.cache
def _free_ports() -> Iterator[int]:
    first = _reserved_block()
    return filter(_is_free, itertools.cycle(range(first + 1, first + _BLOCK)))


def _reserved_block() -> int:
    """Return the first port of a block that is this process's as long as it runs: it listens there."""
    blocks = range(_FIRST, _END, _BLOCK)
    for first in random.sample(blocks, len(blocks)):
        try:
            socket.create_server(("127.0.0.1", first)).detach()
        except OSError:
            continue
        return first
    raise RuntimeError(f"all ports from {_FIRST} to {_END} are taken")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
