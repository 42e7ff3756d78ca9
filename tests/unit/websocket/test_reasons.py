"""Why there is no connection, in words that an operator can act on."""

import re
from pathlib import Path

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
    Ending,
    cause_of,
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
        for reason, cause in (
            (refused_upgrade("HTTP/1.1 404 Not Found", ""), "http_404"),
            (refused_upgrade("HTTP/1.1 418 Teapot", ""), "http_other"),
            (refused_upgrade("SSH-2.0", "junk"), "no_websocket"),
            (failed_attempt(Failure(DNSLookupError("no results"))), "dns"),
            (failed_attempt(Failure(error.ConnectionRefusedError())), "tcp"),
            (failed_attempt(Failure(ValueError("invalid hostname"))), "connect"),
            (ended_before_answer(Failure(TLSError())).reason, "tls"),
            (ended_before_answer(Failure(VerificationError([]))).reason, "tls"),
            (ended_before_answer(done).reason, "no_answer"),
            (ended_by_us(1009, "", 5).reason, "closed_by_dapi"),
            (ended_by_peer(1008, "other client").reason, "closed_by_node_1008"),
            (ended_by_peer(1000, "").reason, "closed_by_node"),
            (ended_by_peer(None, None).reason, "closed_by_node"),
            (lost(done).reason, "lost"),
            (lost(lost_connection).reason, "lost"),
        ):
            self.assertEqual(cause_of(reason), cause, reason)

    def test_the_reasons_of_open_connections_have_one_too(self) -> None:
        folder = Path(reasons.__file__).parents[1]
        sources = [
            folder / name for name in ("websocket/protocol.py", "poc/websocket_protocol.py", "poc/websocket_client.py")
        ]
        text = "".join(path.read_text(encoding="utf-8") for path in sources)
        found = re.findall(r'(?:\.end\(|Ending\([^"]*)f?"([^"]* [^"]+)"', text)
        self.assertGreaterEqual(len(found), 6)
        self.assertEqual([reason for reason in found if cause_of(reason) == "other"], [])

    @given(st.text())
    def test_no_peer_makes_up_new_ones(self, text: str) -> None:
        causes = {cause_of(refused_upgrade(text, text)), cause_of(ended_by_peer(1000, text).reason), cause_of(text)}
        known = {cause for _, cause in reasons._CAUSES} | {f"http_{status}" for status in reasons._HINTS}
        self.assertLessEqual(causes, known | {"http_other", "other"})


class ReasonTests(SynchronousTestCase):
    def test_404_names_the_likely_cause(self) -> None:
        self.assertEqual(
            refused_upgrade("HTTP/1.1 404 Not Found", "whatever"),
            "404: no WebSocket in this node, or the proxy before it strips the Upgrade header",
        )

    def test_other_statuses_also_of_old_http(self) -> None:
        self.assertTrue(refused_upgrade("HTTP/1.1 403 Forbidden", "").startswith("403: "))
        self.assertTrue(refused_upgrade("HTTP/1.0 500 Oops", "Unsupported HTTP version").startswith("500: "))
        self.assertEqual(refused_upgrade("HTTP/1.1 418 Teapot", ""), "418: the upgrade was refused")

    def test_junk_is_shown_printable_and_without_what_changes_each_time(self) -> None:
        text = refused_upgrade("SSH-2.0\x1b[31m", 'Bad HTTP status code "\x1b\n"')
        self.assertEqual(text, 'no WebSocket answer to the upgrade: Bad HTTP status code "??"')
        bogus = "Sec-WebSocket-Accept bogus value : expected %s"
        self.assertEqual(
            refused_upgrade("HTTP/1.1 101 x", bogus % "abc"), refused_upgrade("HTTP/1.1 101 x", bogus % "xyz")
        )

    def test_what_a_peer_sends_is_shortened(self) -> None:
        self.assertEqual(len(printable("x" * 10_000)), 200)

    def test_attempts(self) -> None:
        self.assertTrue(failed_attempt(Failure(DNSLookupError("no results"))).startswith("DNS: "))
        self.assertTrue(failed_attempt(Failure(error.ConnectionRefusedError())).startswith("TCP: "))
        self.assertEqual(failed_attempt(Failure(ValueError("invalid hostname"))), "connect: invalid hostname")
        self.assertEqual(failed_attempt(Failure(ValueError())), "connect: ValueError")

    def test_tls(self) -> None:
        for cause, reason in (
            (TLSError([("SSL routines", "", "certificate verify failed")]), "TLS: certificate verify failed"),
            (TLSError([]), "TLS: the connection broke off"),
            (TLSError(), "TLS: the connection broke off"),
            (SysCallError(104, "ECONNRESET"), "TLS: 104 ECONNRESET"),
            (VerificationError([]), "TLS: the certificate is not for this host name or address"),
        ):
            self.assertEqual(ended_before_answer(Failure(cause)), Ending(False, reason))

    def test_no_answer_at_all_is_a_refusal(self) -> None:
        for cause in (ConnectionDone(), ConnectionLost()):
            self.assertTrue(ended_before_answer(Failure(cause)).is_refusal)

    def test_close_frames(self) -> None:
        self.assertEqual(
            ended_by_peer(1008, "PoW is not running"), Ending(True, "closed by the node: 1008 PoW is not running")
        )
        self.assertEqual(ended_by_peer(1012, None), Ending(False, "closed by the node: 1012"))
        self.assertEqual(ended_by_peer(None, None), Ending(False, "closed by the node: without a code"))
        too_big = ended_by_us(1009, "size 12345", 64)
        self.assertEqual(too_big.reason, "closed by us: 1009 a message above the limit of 64 bytes")
        self.assertEqual(ended_by_us(1002, "bad\nframe", 64).reason, "closed by us: 1002 bad?frame")

    def test_lost(self) -> None:
        self.assertTrue(lost(Failure(ConnectionLost())).reason.startswith("connection lost: "))
