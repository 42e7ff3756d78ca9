"""Where a connection goes to: an address or a name, over TCP, or over TLS with a check of whom it reaches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL.crypto import Error as CertificateError
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from dapi.errors import ConfigError
from dapi.http.pinned import PinnedCertificate, PinnedConnections
from dapi.messages.urls import ip_address_of

# The least that RFC 8305 allows. A refused connection fails only after it, even when there is no other address.
_NEXT_ADDRESS_AFTER_SECONDS = 0.1
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def tcp_endpoint(reactor: Any, host: str, port: int, *, timeout_seconds: float) -> IStreamClientEndpoint:
    """Return the endpoint for an IP address, or for a name that is looked up at each attempt, in both families."""
    address = ip_address_of(host)
    if address is None:
        return HostnameEndpoint(reactor, host, port, timeout=timeout_seconds, attemptDelay=_NEXT_ADDRESS_AFTER_SECONDS)
    # A name's endpoint takes several times as long for each attempt (docs/protocol/measured.md, 'Twisted').
    endpoint = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
    return endpoint(reactor, host, port, timeout=timeout_seconds)


def tls_endpoint(reactor: Any, endpoint: IStreamClientEndpoint, host: str, trust_root: Any) -> IStreamClientEndpoint:
    """Return an endpoint that speaks TLS over another one, and checks the certificate and the name (or IP address).

    ``trust_root`` comes from ``trust_root_of``. A pinned certificate may be for any name. ConfigError when no
    certificate can have such a name.
    """
    if isinstance(trust_root, PinnedCertificate):
        return wrapClientTLS(PinnedConnections(trust_root, host), endpoint, clock=reactor)
    try:
        options = optionsForClientTLS(host, trustRoot=trust_root)
    except UnicodeError as error:
        raise ConfigError(f"the host {host!r} cannot be checked over TLS: {error}") from error
    return wrapClientTLS(options, endpoint, clock=reactor)


def trust_root_of(ca_file: str | None, fingerprint: str | None = None) -> Any:
    """Return what ``tls_endpoint`` trusts: the authorities of a PEM file, or the system's for None.

    With a ``fingerprint`` it is the one certificate with that SHA-256. ConfigError when that is none, or the file
    cannot be read or holds no certificate.
    """
    if fingerprint is not None:
        return PinnedCertificate(fingerprint)
    return None if ca_file is None else trustRootFromCertificates(_certificates(ca_file))


def pem_certificates(path: str, what: str) -> list[bytes]:
    """Return the certificates of a PEM file, each as it stands there; ConfigError, naming ``what``, without any."""
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from error
    found: list[bytes] = _CERTIFICATE.findall(text)
    if not found:
        raise ConfigError(f"{what} {path} holds no certificate in PEM form")
    return found


def _certificates(ca_file: str) -> list[Certificate]:
    try:
        return [Certificate.loadPEM(pem) for pem in pem_certificates(ca_file, "ca_file")]
    except (CertificateError, ValueError) as error:
        raise ConfigError(f"ca_file {ca_file} holds a certificate that cannot be read: {error}") from error
