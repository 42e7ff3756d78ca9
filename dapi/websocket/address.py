"""From a URL to a WebSocket's address, and from that, in one place, to an endpoint that checks whom it reaches.

Autobahn takes the URL and the endpoint as two unrelated things: a plain endpoint with a wss URL, or TLS without a
host name, works in silence. Here both come from the same text.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from hyperlink import URL
from OpenSSL.crypto import Error as CertificateError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from dapi.errors import ConfigError
from dapi.messages.urls import ip_address_of, parse_url

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_DEFAULT_PORTS = {"ws": 80, "wss": 443}
# The least that RFC 8305 allows. A refused connection is told only after it, even when there is no other address.
_NEXT_ADDRESS_AFTER_SECONDS = 0.1
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class WebSocketAddress(NamedTuple):
    """The parts of a WebSocket URL. ``resource`` is what is asked for: the path, and the query if there is one."""

    url: str
    is_secure: bool
    host: str
    port: int
    resource: str

    @property
    def host_header(self) -> str:
        """The host as HTTP wants to see it: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        """Tell whom it reaches, without path and query: either may carry a key."""
        scheme = "wss" if self.is_secure else "ws"
        return f"{scheme}://{self.host_header}:{self.port}"


class UrlParts(NamedTuple):
    """A URL's parts, checked. ``port`` may be the scheme's own; ``path`` and ``query`` are as they were."""

    is_websocket: bool
    is_secure: bool
    host: str
    port: int
    path: str
    query: str

    def address(self, resource: str) -> WebSocketAddress:
        """Return the address of a resource there."""
        scheme = "wss" if self.is_secure else "ws"
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        authority = bracketed if self.port == _DEFAULT_PORTS[scheme] else f"{bracketed}:{self.port}"
        return WebSocketAddress(f"{scheme}://{authority}{resource}", self.is_secure, self.host, self.port, resource)


def split_url(url: str, kind: str) -> UrlParts:
    """Take an http, https, ws or wss URL apart; no scheme means http.

    ConfigError when it is no such URL, or carries a user, a password or a fragment: ``kind`` (like ``PoC URL``) says
    whose it is.
    """
    parts = _parse(url, kind)
    _check_host_and_port(parts, kind)
    path = "".join(f"/{segment}" for segment in parts.path)
    query = "&".join(name if value is None else f"{name}={value}" for name, value in parts.query)
    scheme = _SCHEMES[parts.scheme]
    port = parts.port or _DEFAULT_PORTS[scheme]
    return UrlParts(scheme == parts.scheme, scheme == "wss", parts.host, port, path, query)


def websocket_endpoint(
    reactor: Any, address: WebSocketAddress, *, connect_timeout_seconds: float, ca_file: str | None
) -> IStreamClientEndpoint:
    """Return the endpoint for an address: TLS with certificate and host name (or IP address) checked for wss.

    ``ca_file``: the PEM file of the authorities to trust, None for the system's. ConfigError when it cannot be read
    or holds no certificate.
    """
    endpoint = HostnameEndpoint(
        reactor,
        address.host,
        address.port,
        timeout=connect_timeout_seconds,
        attemptDelay=_NEXT_ADDRESS_AFTER_SECONDS,
    )
    if not address.is_secure:
        return endpoint
    trust_root: Any = None
    if ca_file is not None:
        trust_root = trustRootFromCertificates(_certificates(ca_file))
    try:
        options = optionsForClientTLS(address.host, trustRoot=trust_root)
    except UnicodeError as error:
        raise ConfigError(f"the host {address.host!r} cannot be checked over TLS: {error}") from error
    return wrapClientTLS(options, endpoint, clock=reactor)


def _parse(url: str, kind: str) -> URL:
    # What is refused is not quoted: it may hold a password.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"a {kind} has a character that no URL may have (non-ASCII, space or control)")
    try:
        parts = parse_url(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise ConfigError(f"a {kind} cannot be read: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"a {kind} has the scheme {parts.scheme!r}: http, https, ws and wss are allowed")
    if parts.userinfo:
        raise ConfigError(f"a {kind} carries a user or password, which nodes do not know: remove it")
    if parts.fragment:
        raise ConfigError(f"a {kind} has a fragment ('#…'): remove it")
    return parts


def _check_host_and_port(parts: URL, kind: str) -> None:
    host = parts.host
    # Autobahn takes the name "unix" for a socket in the file system.
    is_name = _HOST_NAME.fullmatch(host) is not None and len(host) <= 253 and host != "unix"
    if not is_name and ip_address_of(host) is None:
        raise ConfigError(f"a {kind} has the host {host!r}: a name is made of letters, digits, '-' and '.' (no '_')")
    if parts.port == 0:
        raise ConfigError(f"the {kind} of host {host} has port 0")


def _certificates(ca_file: str) -> list[Certificate]:
    try:
        with open(ca_file, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"ca_file {ca_file} cannot be read: {error.strerror}") from error
    try:
        certificates = [Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(text)]
    except (CertificateError, ValueError) as error:
        raise ConfigError(f"ca_file {ca_file} holds a certificate that cannot be read: {error}") from error
    if not certificates:
        raise ConfigError(f"ca_file {ca_file} holds no certificate in PEM form")
    return certificates
