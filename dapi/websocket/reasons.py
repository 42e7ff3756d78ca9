"""Why there is no connection, in words that an operator can act on.

The same event gives the same words each time, so that only a change is logged. What a peer sends is shortened and made
printable before it is shown.
"""

from __future__ import annotations

import enum
import re
from traceback import walk_tb
from typing import NamedTuple

from cryptography import x509
from OpenSSL.crypto import X509
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.python.failure import Failure

from dapi.messages.printable import printable

_STATUS_LINE = re.compile(r"HTTP/\d\.\d (\d{3})\b")
POLICY_VIOLATION = 1008
_MESSAGE_TOO_BIG = 1009
_SHOWN_NAMES = 10

_HINTS = {
    401: "the proxy before the node wants a login",
    403: "the node, or the proxy before it, refuses this client",
    404: "no WebSocket in this node, or the proxy before it strips the Upgrade header",
    426: "the node, or the proxy before it, wants another protocol version",
    500: "the node failed while it handled the upgrade",
    502: "the proxy does not reach the node",
    503: "the node, or the proxy before it, is not ready",
    504: "the proxy got no answer from the node",
}


class Cause(enum.StrEnum):
    """Of which kind a reason is: of a few, whatever the peer sends."""

    DNS = "dns"
    """The host name is not known."""
    TCP = "tcp"
    """There is no connection to the port."""
    CONNECT = "connect"
    """It could not even be tried."""
    TLS = "tls"
    """TLS failed, or the certificate is not the peer's."""
    HTTP = "http"
    """The peer answered the upgrade with another status than 101, which is the code."""
    NO_ANSWER = "no_answer"
    """The peer gave no answer to the upgrade."""
    NO_WEBSOCKET = "no_websocket"
    """The peer sent what is no WebSocket."""
    CLOSED_BY_NODE = "closed_by_node"
    """The peer sent a close frame, with a code or without one."""
    CLOSED_BY_DAPI = "closed_by_dapi"
    """We sent a close frame; the code is ours, if there is one."""
    LOST = "lost"
    """It broke off."""
    NO_PONG = "no_pong"
    """The peer answered no ping."""
    NOT_READING = "not_reading"
    """The peer read nothing of what we sent."""
    REPLACED_IDLE = "replaced_idle"
    """No message came that it is there for."""
    REPLACED = "replaced"
    """Another connection is better."""


class Ending(NamedTuple):
    """How a connection ended: ``is_refusal`` when the peer did not accept it, ``reason`` in words.

    ``is_planned`` says that we ended it and that nothing is wrong, ``is_abuse`` that the peer flooded us. ``cause`` and
    ``code`` are the same as the reason, to be counted and compared. ``names`` are those in the peer's certificate,
    where that is not the peer's.
    """

    is_refusal: bool
    reason: str
    is_planned: bool = False
    is_abuse: bool = False
    cause: Cause = Cause.CLOSED_BY_DAPI
    code: int | None = None
    names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """One word for it: the cause, and with it those codes that tell more."""
        if self.cause is Cause.HTTP:
            return f"http_{self.code}" if self.code in _HINTS else "http_other"
        is_refusal = self.cause is Cause.CLOSED_BY_NODE and self.code == POLICY_VIOLATION
        return f"{self.cause}_{self.code}" if is_refusal else self.cause.value


def refused_upgrade(status_line: str, complaint: str) -> Ending:
    """Return how a connection ends when an answer is no upgrade.

    ``status_line`` is the first line of the answer, ``complaint`` is Autobahn's text about it.
    """
    status = _STATUS_LINE.match(status_line)
    if status is not None and status[1] != "101":
        code = int(status[1])
        reason = f"{code}: {_HINTS.get(code, 'the upgrade was refused')}"
        return Ending(True, reason, cause=Cause.HTTP, code=code)
    # The text after the colon differs from attempt to attempt.
    return no_websocket(True, f"no WebSocket answer to the upgrade: {printable(complaint.partition(' : ')[0])}")


def no_websocket(is_refusal: bool, reason: str) -> Ending:
    """Return how a connection ends when the peer does not speak the protocol."""
    return Ending(is_refusal, reason, cause=Cause.NO_WEBSOCKET)


def no_answer(reason: str) -> Ending:
    """Return how a connection ends on which the upgrade gets no answer."""
    return Ending(True, reason, cause=Cause.NO_ANSWER)


def failed_attempt(failure: Failure) -> Ending:
    """Return how an attempt ended that brought no TCP connection."""
    if isinstance(failure.value, DNSLookupError):
        return Ending(False, f"DNS: {failure.getErrorMessage()}", cause=Cause.DNS)
    if isinstance(failure.value, ConnectError):
        return Ending(False, f"TCP: {failure.getErrorMessage()}", cause=Cause.TCP)
    reason = f"connect: {printable(failure.getErrorMessage()) or type(failure.value).__name__}"
    return Ending(False, reason, cause=Cause.CONNECT)


def ended_before_answer(failure: Failure) -> Ending:
    """Return how a connection ended on which the upgrade was not yet answered."""
    if isinstance(failure.value, VerificationError):
        names = _names_in(_certificate_of(failure.value))
        said = f"; it is for {', '.join(names)}" if names else ""
        reason = f"TLS: the certificate is not for this host name or address{said}"
        return Ending(False, reason, cause=Cause.TLS, names=names)
    if isinstance(failure.value, TLSError):
        return Ending(False, f"TLS: {_tls_words(failure.value)}", cause=Cause.TLS)
    return no_answer("the node closed the connection without an answer to the upgrade")


def ended_by_us(code: int | None, text: str, max_message_bytes: int) -> Ending:
    """Return how a connection ends on which we send a close frame."""
    if code == _MESSAGE_TOO_BIG:
        # Autobahn's text has the size, which differs each time.
        text = f"a message above the limit of {max_message_bytes} bytes"
    reason = f"closed by us: {code} {printable(text)}"
    return Ending(False, reason, is_abuse=code == POLICY_VIOLATION, cause=Cause.CLOSED_BY_DAPI, code=code)


def ended_by_peer(code: int | None, text: str | None) -> Ending:
    """Return how a connection ends on which the peer sent a close frame; ``code`` is None when it carried none."""
    said = f"closed by the node: {code if code is not None else 'without a code'}"
    if text:
        said += f" {printable(text)}"
    return Ending(code == POLICY_VIOLATION, said, cause=Cause.CLOSED_BY_NODE, code=code)


def lost(failure: Failure) -> Ending:
    """Return how an open connection ended that nobody closed."""
    if failure.check(ConnectionDone):
        # Twisted calls that clean: the kernel closes the sockets of a process that was killed.
        reason = "connection lost: the node's process ended, or closed it without a close frame"
        return Ending(False, reason, cause=Cause.LOST)
    reason = f"connection lost: {printable(failure.getErrorMessage()) or type(failure.value).__name__}"
    return Ending(False, reason, cause=Cause.LOST)


def _certificate_of(error: VerificationError) -> X509 | None:
    """Return the peer's certificate, which Twisted's check of it has, and nothing else: the handshake never ended."""
    frames = walk_tb(error.__traceback__)
    found = (value for frame, _ in frames for value in frame.f_locals.values() if isinstance(value, X509))
    return next(found, None)


def _names_in(certificate: X509 | None) -> tuple[str, ...]:
    """Return the host names and addresses that a certificate is for, the first 10; none: ()."""
    if certificate is None:
        return ()
    try:
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return tuple(map(printable, found[:_SHOWN_NAMES]))


def _tls_words(error: TLSError) -> str:
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list | tuple) and queue:
        return printable(str(queue[-1][-1]))
    return printable(" ".join(str(part) for part in error.args if part)) or "the connection broke off"
