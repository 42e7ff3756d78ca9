"""Tells systemd how the process is: ready, alive, stopping (``Type=notify``, ``WatchdogSec=``; see sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.timing.timer import Timer

_AGAIN_SECONDS = 1.0


class SystemdNotifier(Service):
    """Started last and stopped first: says READY=1 at its start, STOPPING=1 at its stop.

    Where the unit has a watchdog, it says WATCHDOG=1 three times in that time, from the reactor's thread: a reactor
    that hangs is silent, and systemd starts the process anew. ``environ`` has NOTIFY_SOCKET, and WATCHDOG_USEC and
    WATCHDOG_PID as systemd sets them; ``send`` sends one datagram.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, environ: Mapping[str, str], send: Callable[[str, bytes], None] | None = None
    ) -> None:
        self._address = environ["NOTIFY_SOCKET"]
        self._send = send or _send
        self._watchdog_seconds = _watchdog_seconds(environ)
        self._timer = Timer(reactor, 0, self._speak)
        self._untold: tuple[str, ...] = ()
        self._has_failed = False

    def startService(self) -> None:
        """Say that dapi is ready, and from now on that it is alive."""
        super().startService()  # type: ignore[no-untyped-call]
        self._untold = ("READY=1",)
        self._speak()

    def stopService(self) -> Deferred[None]:
        """Say that dapi stops."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._timer.cancel()
        self._untold = ("STOPPING=1",)
        self._speak()
        return succeed(None)

    def _speak(self) -> None:
        alive = ("WATCHDOG=1",) if self._watchdog_seconds is not None and self.running else ()
        try:
            self._send(self._address, "\n".join((*self._untold, *alive)).encode())
        except (OSError, ValueError) as error:
            if not self._has_failed:
                self.log.warn("systemd cannot be told how dapi is: {error}", error=str(error))
            self._has_failed = True
        else:
            self._has_failed = False
            self._untold = ()
        if not self.running:
            return
        if self._watchdog_seconds is not None:
            self._timer.start(self._watchdog_seconds / 3)
        elif self._untold:
            self._timer.start(_AGAIN_SECONDS)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's time, None where this process has none."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() and int(microseconds) else None


def _send(address: str, text: bytes) -> None:
    # systemd writes the null byte of an abstract address as @.
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(text, path)
