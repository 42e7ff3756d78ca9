"""A certificate authority of a test's own."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

_NOT_BEFORE = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100)
_NOT_AFTER = _NOT_BEFORE + datetime.timedelta(days=200)


@implementer(IOpenSSLContextFactory)
class ServerContext:
    """What ``listenSSL`` wants; Twisted's own way from a certificate to it warns of what is deprecated.

    ``sha256`` is the certificate's, as openssl prints it.
    """

    def __init__(self, context: SSL.Context, certificate: x509.Certificate) -> None:
        self._context = context
        self.sha256 = certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def getContext(self) -> SSL.Context:
        return self._context


class Authority:
    """Signs certificates for host names and addresses; ``pem`` is its own one."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, folder: Path, *others: Authority) -> str:
        """Write a CA file that holds this authority, after others if given; return its path."""
        path = folder / "ca.pem"
        path.write_bytes(b"# authorities\n" + b"".join(authority.pem for authority in (*others, self)))
        return str(path)

    def options_for(self, host: str, days: float = 30) -> ServerContext:
        """Return a server's TLS options for a host name or an address; its certificate ends ``days`` from now."""
        certificate, key = self._issue([host], days)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        return ServerContext(context, certificate)

    def write_for(self, folder: Path, *hosts: str, days: float = 30, name: str = "server") -> tuple[str, str]:
        """Write a certificate for host names or addresses, and its key; return their paths.

        It ends ``days`` from now.
        """
        certificate, key = self._issue(hosts, days)
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + self.pem)
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(paths[0]), str(paths[1])

    def _issue(self, hosts: Sequence[str], days: float) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        certificate = (
            self._builder(subject, key, ends).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        )
        return certificate, key

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, ends: datetime.datetime = _NOT_AFTER
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(ends)
        )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
