"""From a URL to a WebSocket's address, and from the address to an endpoint that checks whom it reaches.

Autobahn takes the URL and the endpoint as two unrelated things: it does not notice a plain endpoint with a wss URL, or
TLS without a host name. Here both come from one text.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from twisted.internet.interfaces import IStreamClientEndpoint

from dapi.errors import ConfigError
from dapi.http.endpoints import tcp_endpoint, tls_endpoint, trust_root_of
from dapi.messages.urls import ip_address_of, parse_url
from dapi.websocket.settings import ConnectionSettings

_IS_SECURE = {"http": False, "https": True, "ws": False, "wss": True}
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?")


class WebSocketAddress(NamedTuple):
    """Where a WebSocket is; ``resource`` is the path of the URL, and its query if there is one."""

    is_secure: bool
    host: str
    port: int
    resource: str

    @property
    def host_header(self) -> str:
        """The host in the form of HTTP: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        """Return the URL without path and query: either may carry a key."""
        return f"{'wss' if self.is_secure else 'ws'}://{self.host_header}:{self.port}"


def split_url(url: str, kind: str) -> tuple[str, WebSocketAddress]:
    """Return the scheme of an http, https, ws or wss URL, and its address; no scheme means http.

    ConfigError when it is no such URL, or carries a user, a password or a fragment: ``kind`` (like ``PoC URL``) says
    whose it is.
    """
    # A URL that is refused is not quoted: it may hold a password.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"a {kind} has a character that no URL may have (non-ASCII, space or control)")
    try:
        parts = parse_url(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise ConfigError(f"a {kind} cannot be read: {error}") from error
    if parts.scheme not in _IS_SECURE:
        raise ConfigError(f"a {kind} has the scheme {parts.scheme!r}: http, https, ws and wss are allowed")
    if parts.userinfo:
        raise ConfigError(f"a {kind} carries a user or password, which nodes do not know: remove it")
    if parts.fragment:
        raise ConfigError(f"a {kind} has a fragment ('#…'): remove it")
    host, is_secure = parts.host, _IS_SECURE[parts.scheme]
    # In the URLs of Autobahn the name "unix" means a socket in the file system.
    is_name = _HOST_NAME.fullmatch(host) is not None and len(host) <= 253 and host != "unix"
    if not is_name and ip_address_of(host) is None:
        raise ConfigError(f"a {kind} has the host {host!r}: a name is made of letters, digits, '-' and '.' (no '_')")
    if parts.port == 0:
        raise ConfigError(f"the {kind} of host {host} has port 0")
    query = "&".join(name if value is None else f"{name}={value}" for name, value in parts.query)
    resource = "".join(f"/{segment}" for segment in parts.path) + (f"?{query}" if query else "")
    return parts.scheme, WebSocketAddress(is_secure, host, parts.port or (443 if is_secure else 80), resource)


def websocket_endpoint(reactor: Any, address: WebSocketAddress, settings: ConnectionSettings) -> IStreamClientEndpoint:
    """Return the endpoint for an address; for wss it checks the certificate and the host name (or IP address).

    The settings say whom to trust, see ConnectionSettings; ConfigError when that cannot be used.
    """
    seconds = settings.connect_timeout_seconds
    endpoint = tcp_endpoint(reactor, address.host, address.port, timeout_seconds=seconds)
    if not address.is_secure:
        return endpoint
    return tls_endpoint(reactor, endpoint, address.host, trust_root_of(settings.ca_file, settings.fingerprint))
