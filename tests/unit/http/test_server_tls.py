"""Which certificate a port shows, and what is said of files that cannot be used."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dapi.errors import ConfigError
from dapi.http import server_tls
from dapi.http.server_tls import TRANSITIONS, ServerTls, TlsFiles, TlsState
from tests.integration.certificates import Authority
from tests.logs import log_of

AUTHORITY = Authority()


class FilesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.files = TlsFiles(*AUTHORITY.write_for(self.folder, "localhost"))

    def make(self, files: TlsFiles | None = None) -> ServerTls:
        clock = MemoryReactorClock()
        clock.advance(time.time())
        return ServerTls(clock, files or self.files)


class StartTests(FilesTestCase):
    def refused(self, files: TlsFiles) -> str:
        return str(self.assertRaises(ConfigError, self.make, files))

    def write(self, content: bytes) -> str:
        path = self.folder / "other"
        path.write_bytes(content)
        return str(path)

    def test_the_right_files(self) -> None:
        tls = self.make()
        self.assertTrue(verifyObject(IOpenSSLServerConnectionCreator, tls))
        status = tls.status()
        self.assertEqual((status.state, status.problem), (TlsState.CURRENT, None))
        self.assertEqual(status.days_left, 30)
        self.assertLess(abs(status.expires_at - time.time() - 30 * 86400), 3600)

    def test_one_that_has_ended_is_shown_all_the_same(self) -> None:
        tls = self.make(TlsFiles(*AUTHORITY.write_for(self.folder, "localhost", days=-2, name="old")))
        self.assertEqual(tls.status().days_left, -2)

    def test_files_that_are_not_there(self) -> None:
        for files, name in (
            (self.files._replace(certificate="/none.pem"), "tls.certificate /none.pem"),
            (self.files._replace(key="/none.key"), "tls.key /none.key"),
            (self.files._replace(client_ca="/none.pem"), "tls.client_ca_file /none.pem"),
        ):
            self.assertEqual(self.refused(files), f"{name} cannot be read: No such file or directory")

    def test_a_key_of_another_certificate(self) -> None:
        other = AUTHORITY.write_for(self.folder, "localhost", name="other")
        self.assertIn("does not fit tls.certificate", self.refused(self.files._replace(key=other[1])))

    def test_a_key_that_is_none(self) -> None:
        for content in (b"", b"secret words", Path(self.files.certificate).read_bytes()):
            said = self.refused(self.files._replace(key=self.write(content)))
            self.assertIn("holds no private key in PEM form", said)
            self.assertNotIn("secret", said)

    def test_an_encrypted_key(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
        self.assertIn("is encrypted", self.refused(self.files._replace(key=self.write(content))))

    def test_a_certificate_that_is_none(self) -> None:
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for content, said in ((b"", "holds no certificate in PEM form"), (broken, "that cannot be read")):
            self.assertIn(said, self.refused(self.files._replace(certificate=self.write(content))))


class ChangeTests(FilesTestCase):
    """What ``take`` makes of what the thread found; tests/integration/service/test_tls.py has the thread."""

    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)
        self.tls = self.make()

    def look(self) -> None:
        self.tls.take(server_tls._look(self.files, self.tls._stamps))

    def write(self, days: float) -> None:
        AUTHORITY.write_for(self.folder, "localhost", days=days)
        for path in self.files[:2]:
            os.utime(str(path), ns=(0, int(days)))

    def test_files_that_did_not_change_are_not_read(self) -> None:
        self.assertIsNone(server_tls._look(self.files, self.tls._stamps))
        before = self.tls._loaded
        self.look()
        self.assertIs(self.tls._loaded, before)
        self.assertEqual(self.log.lines(), [])

    def test_new_files_are_shown(self) -> None:
        self.write(60)
        self.look()
        self.assertEqual(self.tls.status().days_left, 60)
        self.assertEqual(self.log.lines(), [f"{self.files.certificate}: is shown from now on"])

    def test_every_way_that_is_drawn(self) -> None:
        walked = []
        for change in (lambda: Path(self.files.key).unlink(), lambda: self.write(60), lambda: self.write(70)):
            before = self.tls.state
            change()
            self.look()
            walked.append((before, self.tls.state))
        Path(self.files.key).write_text("no key")
        self.look()
        Path(self.files.key).write_text("no key either")
        self.look()
        current, stale = TlsState.CURRENT, TlsState.STALE
        walked += [(current, stale), (stale, stale)]
        self.assertIs(self.tls.state, stale)
        self.assertEqual(
            walked, [(current, stale), (stale, current), (current, current), (current, stale), (stale, stale)]
        )
        self.assertEqual({(before, after) for before, each in TRANSITIONS.items() for after in each}, set(walked))

    def test_files_that_do_not_fit_leave_the_certificate_from_before(self) -> None:
        Path(self.files.key).unlink()
        self.look()
        self.look()
        status = self.tls.status()
        self.assertEqual(status.state, TlsState.STALE)
        self.assertIn("cannot be read", status.problem or "")
        self.assertEqual(status.days_left, 30)
        self.assertEqual(len(self.log.lines(containing="the certificate from before is still shown")), 1)
        self.write(60)
        self.look()
        self.assertEqual(self.tls.status().problem, None)
