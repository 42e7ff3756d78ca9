"""A server that is known by its certificate, whoever signed it and whatever names it is for."""

from __future__ import annotations

import re
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.errors import ConfigError
from dapi.messages.urls import ip_address_of

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class WrongCertificateError(SSL.Error):
    """A server showed another certificate than the pinned one."""


class PinnedCertificate:
    """The SHA-256 of the one certificate that a server may show, in hexadecimal digits, perhaps with colons.

    ConfigError when it is no such text.
    """

    def __init__(self, fingerprint: str) -> None:
        self.sha256 = fingerprint.replace(":", "").lower()
        if _FINGERPRINT.fullmatch(self.sha256) is None:
            raise ConfigError(
                f"{fingerprint!r} is no SHA-256 of a certificate: 64 hexadecimal digits are needed "
                "(openssl x509 -noout -fingerprint -sha256 -in FILE)"
            )


@implementer(IOpenSSLClientConnectionCreator)
class PinnedConnections:
    """Makes the TLS connections to a server at ``host``, and ends those that show another certificate."""

    def __init__(self, pinned: PinnedCertificate, host: str) -> None:
        self._pinned = pinned
        self._host = host.encode("idna") if ip_address_of(host) is None else None

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803
        """Return a connection that checks the certificate before anything is sent over it."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)

        def verify(_connection: object, certificate: X509, _error: int, depth: int, _is_ok: int) -> bool:
            # Those above it are of no matter.
            if depth:
                return True
            shown = certificate.digest("sha256").decode().replace(":", "").lower()
            if shown != self._pinned.sha256:
                text = f"the certificate is another one than the pinned: the SHA-256 of this one is {shown}"
                tlsProtocol.failVerification(Failure(WrongCertificateError(text)))
                return False
            return True

        context.set_verify(SSL.VERIFY_PEER, verify)
        connection = SSL.Connection(context, None)
        if self._host is not None:
            connection.set_tlsext_host_name(self._host)
        return connection
