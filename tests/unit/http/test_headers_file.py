"""The headers of a file, and what is said of one that cannot be used; never what is in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ConfigError
from dapi.http.headers_file import HeadersFile
from dapi.http.pinned import PinnedCertificate

SECRET = "open-sesame"


class HeadersFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "headers"

    def write(self, content: bytes) -> HeadersFile:
        self.path.write_bytes(content)
        self.path.chmod(0o600)
        return HeadersFile(str(self.path))

    def refused(self, file: HeadersFile) -> str:
        said = str(self.assertRaises(ConfigError, file.read))
        self.assertIn(str(self.path), said)
        self.assertNotIn(SECRET, said)
        self.assertNotIn(SECRET, repr(file))
        return said

    def test_one_header_a_line(self) -> None:
        file = self.write(b"# for the proxy\n\nAuthorization: Basic eDp5\r\nX-Key:  a b \n")
        self.assertEqual(file.read(), {"Authorization": "Basic eDp5", "X-Key": "a b"})

    def test_it_is_read_each_time(self) -> None:
        file = self.write(b"A: 1")
        file.read()
        self.write(b"A: 2")
        self.assertEqual(file.read(), {"A": "2"})

    def test_one_that_others_can_read(self) -> None:
        file = self.write(f"A: {SECRET}".encode())
        for mode in (0o640, 0o604):
            self.path.chmod(mode)
            self.assertIn("can be read by others: chmod 600 it", self.refused(file))

    def test_one_that_is_not_there(self) -> None:
        self.assertIn("cannot be read: No such file", self.refused(HeadersFile(str(self.path))))

    def test_lines_that_are_no_headers(self) -> None:
        for line in (SECRET, f": {SECRET}", f"A B: {SECRET}", f"A: {SECRET}\x7f", f"A: {SECRET}\xe4", "A:", "A:  "):
            said = self.refused(self.write(b"B: 1\n" + line.encode("latin-1")))
            self.assertIn("line 2 is no header", said)

    def test_a_header_cannot_be_smuggled_in(self) -> None:
        for separator in (b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x85"):
            file = self.write(b"A: 1" + separator + b"Host: evil")
            self.assertRaises(ConfigError, file.read)

    def test_headers_that_are_not_the_operators(self) -> None:
        for name in ("Host", "content-length", "Connection", "Sec-WebSocket-Key", "Transfer-Encoding"):
            self.assertIn(f"{name} is set by dapi itself", self.refused(self.write(f"{name}: {SECRET}".encode())))

    def test_a_large_file_is_none(self) -> None:
        self.assertIn("more than 16384 bytes", self.refused(self.write(b"A: 1\n" * 4000)))


class FingerprintTests(SynchronousTestCase):
    def test_both_ways_to_write_it(self) -> None:
        colons = ":".join(["AB"] * 32)
        self.assertEqual(PinnedCertificate(colons).sha256, "ab" * 32)
        self.assertEqual(PinnedCertificate("ab" * 32).sha256, "ab" * 32)

    def test_what_is_none(self) -> None:
        for text in ("", "ab" * 20, "ab" * 33, "xy" * 32, "sha256"):
            error = self.assertRaises(ConfigError, PinnedCertificate, text)
            self.assertIn("64 hexadecimal digits are needed", str(error))
