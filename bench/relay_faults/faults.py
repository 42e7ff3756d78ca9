"""The faults: each gets a host, and for how many seconds; without dapi what concerns dapi alone does nothing."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.internet.task import deferLater

from bench.relay_faults.host import Host
from dapi.messages.sizes import MIB

Act = Callable[[Any, Host, float], Awaitable[None]]


async def refuse(reactor: Any, host: Host, seconds: float) -> None:
    """Have the container answer 503 to everything."""
    host.api.faults.status = 503
    await deferLater(reactor, seconds)
    host.api.faults.status = None


async def hang(reactor: Any, host: Host, seconds: float) -> None:
    """Have the container answer nothing; what it has not answered by then it never answers."""
    host.api.faults.hangs = True
    await deferLater(reactor, seconds)
    host.api.faults.hangs = False


async def kill(_reactor: Any, host: Host, seconds: float) -> None:
    """Kill the container, and start it again after a while."""
    await host.api.crash(seconds)


async def restart(_reactor: Any, host: Host, _seconds: float) -> None:
    """Stop and start the container: it writes nothing before it stops."""
    await host.api.crash(1.6)


async def fill_container(reactor: Any, host: Host, seconds: float) -> None:
    """Fill the container's disk: a version before v0.2.14 answers 200, and all is gone."""
    host.api.faults.store_fails = True
    await deferLater(reactor, seconds)
    host.api.faults.store_fails = False


async def cut(reactor: Any, host: Host, seconds: float) -> None:
    """Cut the network to the container."""
    host.cut()
    await deferLater(reactor, seconds)
    host.mend()


async def cut_nodes(reactor: Any, host: Host, seconds: float) -> None:
    """Cut the network of the nodes."""
    host.network.cut()
    await deferLater(reactor, seconds)
    host.network.mend()


async def kill_dapi(reactor: Any, host: Host, seconds: float) -> None:
    """Kill dapi with -9, and start it again after some seconds."""
    if host.folder is None:
        return
    await host.kill_dapi()
    await deferLater(reactor, min(3.0, seconds))
    host.spawn()
    await host.when_up()


async def fill_dapi(reactor: Any, host: Host, seconds: float) -> None:
    """Fill dapi's disk to the last byte."""
    if host.folder is None:
        return
    ballast = host.dapi_folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * MIB):
                pass
        except OSError:
            pass
    await deferLater(reactor, seconds)
    ballast.unlink()


class Fault(NamedTuple):
    """``act`` is what happens; ``longest_seconds`` is how long it may last."""

    act: Act
    longest_seconds: float = 50.0
    is_dapis: bool = False


FAULTS = {
    "container answers 503": Fault(refuse),
    "container hangs": Fault(hang),
    "container killed": Fault(kill),
    "container started anew": Fault(restart, 2.0),
    "container's disk full": Fault(fill_container),
    "network cut": Fault(cut),
    "network of the nodes cut": Fault(cut_nodes),
    "dapi killed with -9": Fault(kill_dapi, 3.0, is_dapis=True),
    "dapi's disk full": Fault(fill_dapi, is_dapis=True),
}
FULL_CONTAINER, FULL_DAPI = "container's disk full", "dapi's disk full"


def can_have_small_disk() -> bool:
    """Tell whether this machine can give dapi a file system of its own."""
    return shutil.which("unshare") is not None and shutil.which("mount") is not None
