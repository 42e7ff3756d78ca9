"""A listening port that takes a few connections at a time, so that a crowd of them does not hold up everything else."""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort
from twisted.internet.posixbase import PosixReactorBase

# Of the kernel: what waits here costs dapi nothing, and what finds no room is tried again a second later.
_BACKLOG = 1024
_ACCEPTS_A_TURN = 4


class PatientPort(tcp.Port):
    """Accepts at most four connections in each turn of the reactor.

    Twisted's own takes a hundred and more at once, and the open connections wait until all of them are made.
    """

    @property
    def numberAccepts(self) -> int:  # noqa: N802
        """How many are accepted in a turn; what Twisted sets after each one is not wanted."""
        return _ACCEPTS_A_TURN

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:  # noqa: N802
        """Leave it as it is."""


def listen(reactor: Any, port: int, factory: Any, interface: str) -> IListeningPort:
    """Listen, as ``reactor.listenTCP`` does, which raises CannotListenError; 0 lets the system choose the port."""
    if not isinstance(reactor, PosixReactorBase):
        listening: IListeningPort = reactor.listenTCP(port, factory, _BACKLOG, interface)
        return listening
    patient = PatientPort(port, factory, _BACKLOG, interface, reactor)
    patient.startListening()
    return patient
