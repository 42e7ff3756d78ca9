"""Why there is no connection, in words that an operator can act on."""

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL.SSL import Error as TLSError
from OpenSSL.SSL import SysCallError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.error import ConnectionDone, ConnectionLost, DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.printable import printable
from dapi.websocket import reasons
from dapi.websocket.reasons import (
    Cause,
    Ending,
    ended_before_answer,
    ended_by_peer,
    ended_by_us,
    failed_attempt,
    lost,
    refused_upgrade,
)


class CauseTests(SynchronousTestCase):
    """One word for each reason, of a few."""

    def test_every_reason_has_a_cause(self) -> None:
        lost_connection, done = Failure(ConnectionLost()), Failure(ConnectionDone())
        for ending, label in (
            (refused_upgrade("HTTP/1.1 404 Not Found", ""), "http_404"),
            (refused_upgrade("HTTP/1.1 418 Teapot", ""), "http_other"),
            (refused_upgrade("SSH-2.0", "junk"), "no_websocket"),
            (failed_attempt(Failure(DNSLookupError("no results"))), "dns"),
            (failed_attempt(Failure(error.ConnectionRefusedError())), "tcp"),
            (failed_attempt(Failure(ValueError("invalid hostname"))), "connect"),
            (ended_before_answer(Failure(TLSError())), "tls"),
            (ended_before_answer(Failure(VerificationError([]))), "tls"),
            (ended_before_answer(done), "no_answer"),
            (ended_by_us(1009, "", 5), "closed_by_dapi"),
            (ended_by_peer(1008, "other client"), "closed_by_node_1008"),
            (ended_by_peer(1000, ""), "closed_by_node"),
            (ended_by_peer(None, None), "closed_by_node"),
            (lost(done), "lost"),
            (lost(lost_connection), "lost"),
        ):
            self.assertEqual(ending.label, label, ending)

    @given(st.text())
    def test_no_peer_makes_up_new_ones(self, text: str) -> None:
        labels = {refused_upgrade(text, text).label, ended_by_peer(1000, text).label, ended_by_us(1002, text, 5).label}
        known = {*map(str, reasons.Cause), *(f"http_{status}" for status in reasons._HINTS), "http_other"}
        self.assertLessEqual(labels, known)


class ReasonTests(SynchronousTestCase):
    def test_404_names_the_likely_cause(self) -> None:
        self.assertEqual(
            refused_upgrade("HTTP/1.1 404 Not Found", "whatever"),
            Ending(
                True,
                "404: no WebSocket in this node, or the proxy before it strips the Upgrade header",
                cause=Cause.HTTP,
                code=404,
            ),
        )

    def test_other_statuses_also_of_old_http(self) -> None:
        self.assertTrue(refused_upgrade("HTTP/1.1 403 Forbidden", "").reason.startswith("403: "))
        self.assertTrue(refused_upgrade("HTTP/1.0 500 Oops", "Unsupported HTTP version").reason.startswith("500: "))
        self.assertEqual(refused_upgrade("HTTP/1.1 418 Teapot", "").reason, "418: the upgrade was refused")

    def test_junk_is_shown_printable_and_without_what_changes_each_time(self) -> None:
        ending = refused_upgrade("SSH-2.0\x1b[31m", 'Bad HTTP status code "\x1b\n"')
        self.assertEqual((ending.cause, ending.code), (Cause.NO_WEBSOCKET, None))
        self.assertEqual(ending.reason, 'no WebSocket answer to the upgrade: Bad HTTP status code "??"')
        bogus = "Sec-WebSocket-Accept bogus value : expected %s"
        self.assertEqual(
            refused_upgrade("HTTP/1.1 101 x", bogus % "abc"), refused_upgrade("HTTP/1.1 101 x", bogus % "xyz")
        )

    def test_what_a_peer_sends_is_shortened(self) -> None:
        self.assertEqual(len(printable("x" * 10_000)), 200)

    def test_attempts(self) -> None:
        for failure, cause, begin in (
            (DNSLookupError("no results"), Cause.DNS, "DNS: "),
            (error.ConnectionRefusedError(), Cause.TCP, "TCP: "),
            (ValueError("invalid hostname"), Cause.CONNECT, "connect: invalid hostname"),
            (ValueError(), Cause.CONNECT, "connect: ValueError"),
        ):
            ending = failed_attempt(Failure(failure))
            self.assertEqual((ending.is_refusal, ending.cause), (False, cause))
            self.assertTrue(ending.reason.startswith(begin))

    def test_tls(self) -> None:
        for cause, reason in (
            (TLSError([("SSL routines", "", "certificate verify failed")]), "TLS: certificate verify failed"),
            (TLSError([]), "TLS: the connection broke off"),
            (TLSError(), "TLS: the connection broke off"),
            (SysCallError(104, "ECONNRESET"), "TLS: 104 ECONNRESET"),
            (VerificationError([]), "TLS: the certificate is not for this host name or address"),
        ):
            self.assertEqual(ended_before_answer(Failure(cause)), Ending(False, reason, cause=Cause.TLS))

    def test_no_answer_at_all_is_a_refusal(self) -> None:
        for cause in (ConnectionDone(), ConnectionLost()):
            self.assertTrue(ended_before_answer(Failure(cause)).is_refusal)

    def test_close_frames(self) -> None:
        self.assertEqual(
            ended_by_peer(1008, "PoW is not running"),
            Ending(True, "closed by the node: 1008 PoW is not running", cause=Cause.CLOSED_BY_NODE, code=1008),
        )
        restart = Ending(False, "closed by the node: 1012", cause=Cause.CLOSED_BY_NODE, code=1012)
        self.assertEqual(ended_by_peer(1012, None), restart)
        without = Ending(False, "closed by the node: without a code", cause=Cause.CLOSED_BY_NODE)
        self.assertEqual(ended_by_peer(None, None), without)
        too_big = ended_by_us(1009, "size 12345", 64)
        self.assertEqual(too_big.reason, "closed by us: 1009 a message above the limit of 64 bytes")
        self.assertEqual(ended_by_us(1002, "bad\nframe", 64).reason, "closed by us: 1002 bad?frame")

    def test_lost(self) -> None:
        ending = lost(Failure(ConnectionLost()))
        self.assertTrue(ending.reason.startswith("connection lost: "))
        self.assertIs(ending.cause, Cause.LOST)
