# ruff: noqa: N802
# The names are Twisted's.
"""Autobahn's factory, one for any number of clients."""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.interfaces import IAddress, IProtocolFactory
from zope.interface import implementer

from dapi.websocket.frames import Masks
from dapi.websocket.protocol import WatchedConnection


class WatchedConnectionFactory(WebSocketClientFactory):
    """What Autobahn wants to know beside the connection itself, and which is the same for all of them.

    Autobahn's factory has a URL and options, which are not used: each connection says what it asks for, and has the
    options itself (options.py).
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(useragent="dapi", reactor=reactor)
        self.masks = Masks()

    def of_client(self, make_connection: Callable[[], WatchedConnection]) -> IProtocolFactory:
        """Return what makes the connections of one client, one after the other."""
        return _ClientFactory(self, make_connection)


@implementer(IProtocolFactory)
class _ClientFactory:
    """Makes the connections of one client; a factory of Autobahn's for each client would take 2.6 kB."""

    __slots__ = ("_make_connection", "_shared")

    def __init__(self, shared: WatchedConnectionFactory, make_connection: Callable[[], WatchedConnection]) -> None:
        self._shared = shared
        self._make_connection = make_connection

    def doStart(self) -> None:
        """Start nothing."""

    def doStop(self) -> None:
        """Stop nothing."""

    def buildProtocol(self, addr: IAddress | None) -> WatchedConnection:
        """Make the next connection's protocol."""
        connection = self._make_connection()
        connection.factory = self._shared
        return connection
