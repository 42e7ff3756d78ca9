"""Ports that are the same over a restart."""

from __future__ import annotations

import socket
from random import Random

# Below those that systems give to whoever asks for any: nobody else has it while the one that is restarted is away.
_FIRST, _LAST = 10_000, 30_000


def free_port(random: Random) -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    while True:
        port = random.randint(_FIRST, _LAST)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
