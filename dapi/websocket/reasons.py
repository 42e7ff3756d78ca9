"""Why there is no connection, in words that an operator can act on.

The same event gives the same words each time, so that only a change is logged. What a peer sends is shortened and made
printable before it is shown.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.python.failure import Failure

from dapi.messages.printable import printable

_STATUS_LINE = re.compile(r"HTTP/\d\.\d (\d{3})\b")
_STATUS = re.compile(r"(\d{3}): ")
POLICY_VIOLATION = 1008
_MESSAGE_TOO_BIG = 1009

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


# How a reason begins, and the word for it.
_CAUSES = (
    ("DNS: ", "dns"),
    ("TCP: ", "tcp"),
    ("connect: ", "connect"),
    ("TLS: ", "tls"),
    ("no answer to the upgrade", "no_answer"),
    ("the node closed the connection without an answer", "no_answer"),
    ("no WebSocket answer", "no_websocket"),
    ("the node sends what is no WebSocket", "no_websocket"),
    ("closed by the node: 1008", "closed_by_node_1008"),
    ("closed by the node: ", "closed_by_node"),
    ("closed by us: ", "closed_by_dapi"),
    ("connection lost", "lost"),
    ("no answer to a ping", "no_pong"),
    ("the node read nothing", "not_reading"),
    ("replaced: no batch", "replaced_idle"),
    ("replaced: ", "replaced"),
)


class Ending(NamedTuple):
    """How a connection ended: ``is_refusal`` when the peer did not accept it, ``reason`` in words.

    ``is_planned`` says that we ended it and that nothing is wrong, ``is_abuse`` that the peer flooded us.
    """

    is_refusal: bool
    reason: str
    is_planned: bool = False
    is_abuse: bool = False


def refused_upgrade(status_line: str, complaint: str) -> str:
    """Return the reason when an answer is no upgrade.

    ``status_line`` is the first line of the answer, ``complaint`` is Autobahn's text about it.
    """
    status = _STATUS_LINE.match(status_line)
    if status is not None and status[1] != "101":
        return f"{status[1]}: {_HINTS.get(int(status[1]), 'the upgrade was refused')}"
    # The text after the colon differs from attempt to attempt.
    return f"no WebSocket answer to the upgrade: {printable(complaint.partition(' : ')[0])}"


def failed_attempt(failure: Failure) -> str:
    """Return the reason when an attempt ended without a TCP connection."""
    if isinstance(failure.value, DNSLookupError):
        return f"DNS: {failure.getErrorMessage()}"
    if isinstance(failure.value, ConnectError):
        return f"TCP: {failure.getErrorMessage()}"
    return f"connect: {printable(failure.getErrorMessage()) or type(failure.value).__name__}"


def ended_before_answer(failure: Failure) -> Ending:
    """Return how a connection ended on which the upgrade was not yet answered."""
    if isinstance(failure.value, VerificationError):
        return Ending(False, "TLS: the certificate is not for this host name or address")
    if isinstance(failure.value, TLSError):
        return Ending(False, f"TLS: {_tls_words(failure.value)}")
    return Ending(True, "the node closed the connection without an answer to the upgrade")


def ended_by_us(code: int | None, text: str, max_message_bytes: int) -> Ending:
    """Return how a connection ends on which we send a close frame."""
    if code == _MESSAGE_TOO_BIG:
        # Autobahn's text has the size, which differs each time.
        text = f"a message above the limit of {max_message_bytes} bytes"
    return Ending(False, f"closed by us: {code} {printable(text)}", is_abuse=code == POLICY_VIOLATION)


def ended_by_peer(code: int | None, text: str | None) -> Ending:
    """Return how a connection ends on which the peer sent a close frame; ``code`` is None when it carried none."""
    said = f"closed by the node: {code if code is not None else 'without a code'}"
    if text:
        said += f" {printable(text)}"
    return Ending(code == POLICY_VIOLATION, said)


def lost(failure: Failure) -> Ending:
    """Return how an open connection ended that nobody closed."""
    if failure.check(ConnectionDone):
        # Twisted calls that clean: the kernel closes the sockets of a process that was killed.
        return Ending(False, "connection lost: the node's process ended, or closed it without a close frame")
    return Ending(False, f"connection lost: {printable(failure.getErrorMessage()) or type(failure.value).__name__}")


def cause_of(reason: str) -> str:
    """Return one word for a reason: of a few, whatever the peer sends."""
    status = _STATUS.match(reason)
    if status is not None:
        return f"http_{status[1]}" if int(status[1]) in _HINTS else "http_other"
    return next((cause for begin, cause in _CAUSES if reason.startswith(begin)), "other")


def _tls_words(error: TLSError) -> str:
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list | tuple) and queue:
        return printable(str(queue[-1][-1]))
    return printable(" ".join(str(part) for part in error.args if part)) or "the connection broke off"
