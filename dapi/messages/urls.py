"""The parts of URLs, and what a host is: one way for all rooms."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from hyperlink import URL

# scheme://user@host:port and what follows; hyperlink alone lets any number be a port.
_SHAPE = re.compile(
    r"([a-z][a-z0-9+.-]*:)?//([^/?#]*@)?(\[[0-9a-f.]*:[0-9a-f:.]*\]|[^][:/?#@]*)(:(?P<port>[0-9]{1,5}))?(?=[/?#]|\Z)",
    re.IGNORECASE,
)


def parse_url(text: str) -> URL:
    """Take a URL apart; scheme and host are in small letters, a port is 0 to 65535 (None: the scheme has none).

    Raises ValueError when the text is no URL with a host. The error does not quote it: it may hold a password.
    """
    shape = _SHAPE.match(text)
    if shape is None:
        raise ValueError("it is not of the form scheme://host:port/path")
    if int(shape["port"] or 0) > 65535:
        raise ValueError("its port is above 65535")
    try:
        url = URL.from_text(text)
    except ValueError:
        raise ValueError("its host is neither a name nor an address") from None
    return url.normalize(path=False, query=False, fragment=False, userinfo=False)


def without_user(text: str) -> str:
    """Return a URL as it may be shown: without user and password."""
    return parse_url(text).replace(userinfo="").to_text()


def ip_address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that ``host`` is, or None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is reached from this machine only."""
    address = ip_address_of(host)
    return host == "localhost" if address is None else address.is_loopback
