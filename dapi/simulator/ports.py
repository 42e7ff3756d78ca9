"""Ports that are the same over a restart."""

from __future__ import annotations

import socket
from random import Random

# Below those that systems give to whoever asks for any: nobody else has it while the one that is restarted is away.
_PORTS = range(30_000, 32_700)


def free_ports(random: Random, number: int) -> list[int]:
    """Return so many ports of 127.0.0.1 on which nobody listens; raise OSError where so many are not free."""
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(free) == number:
            return free
        try:
            with socket.create_server(("127.0.0.1", port)):
                free.append(port)
        except OSError:
            continue
    raise OSError(f"of the ports {_PORTS.start} to {_PORTS.stop} there are not {number} free")
