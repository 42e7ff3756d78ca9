"""A listening port as a service, which fails loudly and leaves nothing open."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.logger import Logger

from dapi.errors import StartError
from dapi.http.port import listen
from dapi.http.server_tls import ServerTls, TlsFactory
from dapi.http.site import JsonSite


class HttpListener(Service):
    """Listens for ``site`` on one port; log and errors call it ``name``. With port 0 the system chooses one.

    With ``tls``, which it starts and stops, the port speaks HTTPS alone.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTCP,
        name: str,
        site: JsonSite,
        port: int,
        interface: str,
        tls: ServerTls | None = None,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self.site = site
        self._wanted_port = port
        self.interface = interface
        self.tls = tls
        self._listening: IListeningPort | None = None

    @property
    def port(self) -> int:
        """The port that is open, also where the system chose it; while the service is stopped, the wanted one."""
        if self._listening is None:
            return self._wanted_port
        return cast(IPv4Address | IPv6Address, self._listening.getHost()).port

    def startService(self) -> None:
        """Listen, before this returns; raise StartError when the port cannot be had."""
        factory: Any = self.site if self.tls is None else TlsFactory(self.tls, False, self.site, self.site.reactor)
        try:
            self._listening = listen(self._reactor, self._wanted_port, factory, self.interface)
        except CannotListenError as error:
            raise StartError(
                f"{self._name}: cannot listen on {self.interface or '*'} port {self._wanted_port} "
                f"({error.socketError}): stop the process that has it, or choose another port or interface"
            ) from error
        self.site.is_stopping = False
        super().startService()  # type: ignore[no-untyped-call]
        if self.tls is not None:
            self.tls.startService()
        self.log.info(
            "{name}: listening on {interface}:{port}", name=self._name, interface=self.interface, port=self.port
        )

    def stopService(self) -> Deferred[None]:
        """Accept no more connections and close those that are open; the Deferred fires when none is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self.tls is not None:
            await self.tls.stopService()
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        await self.site.close_connections()
