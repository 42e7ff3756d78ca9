"""The certificate that a port shows, read anew when its files change.

A ``ServerTls`` is in one of these states::

               load: the files fit            they no longer do
    (made) ──────────────────────▶ CURRENT ────────────────────▶ STALE
       │                              ▲                            │
       │ they do not: ConfigError     └────────────────────────────┘
       ▼                                     they fit again
     never started

STALE shows the certificate from before: whoever replaces two files has a moment in which they do not fit. Connections
that are open keep the certificate that they began with.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509Store
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocol
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from dapi.errors import ConfigError
from dapi.http.endpoints import pem_certificates
from dapi.timing.clock import unix_seconds
from dapi.timing.log_limits import SayOnce
from dapi.timing.loop import LoopService
from dapi.timing.pool_thread import PoolThread
from dapi.timing.steps import step

LOOK_SECONDS = 10.0
_SECONDS_A_DAY = 86_400.0


class TlsState(enum.StrEnum):
    """The states that are drawn above."""

    CURRENT = "current"
    STALE = "stale"


TRANSITIONS: Final = {
    TlsState.CURRENT: {TlsState.CURRENT, TlsState.STALE},
    TlsState.STALE: {TlsState.CURRENT, TlsState.STALE},
}
"""The states that may follow each state."""


class TlsFiles(NamedTuple):
    """PEM files: a certificate with those of its authorities after it, its key, and who may sign the clients'.

    Without ``client_ca`` clients need no certificate.
    """

    certificate: str
    key: str
    client_ca: str | None = None


class TlsStatus(msgspec.Struct, frozen=True):
    """Which certificate is shown: until when it is valid (unix seconds), and how many days that are.

    ``problem`` says why the files of now are not used, None where they are.
    """

    state: TlsState
    expires_at: float
    days_left: float
    problem: str | None


class _Loaded(NamedTuple):
    context: SSL.Context
    expires_at: float


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls(LoopService):
    """Shows the certificate in ``files`` to all who connect, and looks every 10 s whether these have changed.

    Making it reads the files; ConfigError says which of them cannot be used, and why.
    """

    def __init__(self, reactor: Any, files: TlsFiles) -> None:
        super().__init__(reactor)
        self._files = files
        self._thread = PoolThread(reactor)
        self._stamps = _stamps(files)
        self._loaded = _load(files)
        self._said = SayOnce()
        self._problem: str | None = None
        self.state = TlsState.CURRENT

    async def loop(self) -> None:
        """Look at the files again and again."""
        while self.running:
            await deferLater(self._reactor, LOOK_SECONDS)
            # On a thread: a disk may hang.
            self.take(await self._thread.run(_look, self._files, self._stamps))

    def take(self, found: tuple[Any, _Loaded | str] | None) -> None:
        """Use what was found: None when the files are as they were, else their stamps, and what came of them."""
        if found is None:
            return
        self._stamps, loaded = found
        if isinstance(loaded, str):
            self.state = step(TRANSITIONS, self.state, TlsState.STALE, "a certificate")
            self._problem = loaded
            if self._said.is_new(loaded):
                self.log.error("the certificate from before is still shown: {problem}", problem=loaded)
            return
        self.state = step(TRANSITIONS, self.state, TlsState.CURRENT, "a certificate")
        self._problem, self._loaded = None, loaded
        self._said.is_new(None)
        self.log.info("{certificate}: is shown from now on", certificate=self._files.certificate)

    def status(self) -> TlsStatus:
        """Return which certificate is shown."""
        expires_at = self._loaded.expires_at
        days_left = round((expires_at - unix_seconds(self._reactor)) / _SECONDS_A_DAY, 1)
        return TlsStatus(self.state, expires_at, days_left, self._problem)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802
        """Begin a connection with the certificate of now."""
        return SSL.Connection(self._loaded.context, None)


class TlsFactory(TLSMemoryBIOFactory):
    """Makes the connections of a site over TLS; one that the site refuses is closed at once."""

    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        """Return the next connection's protocol, None where the site takes no more."""
        wrapped: IProtocol | None = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def _look(files: TlsFiles, stamps: Any) -> tuple[Any, _Loaded | str] | None:
    now = _stamps(files)
    if now == stamps:
        return None
    try:
        return now, _load(files)
    except ConfigError as error:
        return now, str(error)


def _stamps(files: TlsFiles) -> Any:
    return [_stamp(path) for path in files if path is not None]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(Path(path).expanduser())
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _load(files: TlsFiles) -> _Loaded:
    leaf, *others = _certificates(files.certificate, "tls.certificate")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    # A session that is resumed would go on with a certificate that was replaced.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.use_certificate(leaf)
    for other in others:
        context.add_extra_chain_cert(other)
    try:
        context.use_privatekey(_key(files.key))
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigError(
            f"tls.key {files.key} does not fit tls.certificate {files.certificate}: give the key that the first "
            "certificate in that file was made for"
        ) from error
    if files.client_ca is not None:
        _demand_certificates(context, _certificates(files.client_ca, "tls.client_ca_file"))
    return _Loaded(context, leaf.not_valid_after_utc.timestamp())


def _certificates(path: str, setting: str) -> list[x509.Certificate]:
    try:
        return [x509.load_pem_x509_certificate(pem) for pem in pem_certificates(path, setting)]
    except ValueError as error:
        raise ConfigError(f"{setting} {path} holds a certificate that cannot be read: {error}") from error


def _key(path: str) -> Any:
    try:
        return load_pem_private_key(Path(path).expanduser().read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"tls.key {path} cannot be read: {error.strerror}") from error
    except TypeError:
        raise ConfigError(f"tls.key {path} is encrypted: dapi asks for no password, so store it without one") from None
    except Exception:  # noqa: BLE001 - of several kinds, and none of their words belongs into a log
        raise ConfigError(f"tls.key {path} holds no private key in PEM form that can be used") from None


def _demand_certificates(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    store = context.get_cert_store()
    for authority in authorities:
        cast(X509Store, store).add_cert(X509.from_cryptography(authority))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: bool(arguments[-1]))
