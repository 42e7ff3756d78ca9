"""A file with something secret."""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.database.secret_file import SecretFile
from dapi.errors import StartError
from tests.logs import log_of


class SecretFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp(), "folder", "secret")
        self.log = log_of(self)
        self.made = 0

    def read_or_make(self) -> bytes:
        return SecretFile(self.path, "the secret", exposed="make another").read_or_make(self.make)

    def make(self) -> bytes:
        self.made += 1
        return b"hunter2"

    def test_is_made_once_and_for_its_owner_only(self) -> None:
        for _ in range(2):
            self.assertEqual(self.read_or_make(), b"hunter2")
        self.assertEqual(self.made, 1)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual([self.path], list(self.path.parent.iterdir()))
        self.assertEqual(self.log.lines(), [])

    def test_what_a_crash_left_is_no_secret(self) -> None:
        self.path.parent.mkdir(parents=True)
        Path(f"{self.path}.new").write_bytes(b"hun")
        self.assertEqual(self.read_or_make(), b"hunter2")

    def test_one_that_others_could_read_is_closed_and_told(self) -> None:
        self.read_or_make()
        self.path.chmod(0o644)
        self.read_or_make()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        (line,) = self.log.warnings("was open to others (mode 644)")
        self.assertTrue(line.endswith("make another"))
        self.assertNotIn("hunter2", line)

    def test_a_path_that_cannot_be(self) -> None:
        self.path.parent.parent.mkdir(parents=True)
        self.path.parent.write_text("no folder")
        error = self.assertRaises(StartError, self.read_or_make)
        self.assertIn("the secret, ", str(error))
        self.assertIn("cannot be read or made", str(error))
