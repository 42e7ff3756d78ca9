"""Ports that are the same over a restart."""

from __future__ import annotations

from random import Random

from dapi.simulator import ports


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens, and which the system gives to nobody who asks for any."""
    # By no seed: tests run side by side.
    return ports.free_port(Random())
