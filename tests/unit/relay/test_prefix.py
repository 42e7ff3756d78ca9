"""The secret prefix: made once, kept over restarts, and for its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StartError
from dapi.relay.prefix import PrefixFile
from tests.logs import log_of


class PrefixTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "relay.prefix"

    def open(self) -> PrefixFile:
        opened = PrefixFile(str(self.path))
        opened.open()
        return opened

    def test_made_at_the_first_start_and_kept(self) -> None:
        first = self.open()
        self.assertRegex(first.prefix, r"^/k/[A-Za-z0-9_-]{43}$")
        self.assertEqual(self.open().prefix, first.prefix)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.path.unlink()
        self.assertNotEqual(self.open().prefix, first.prefix)

    def test_only_the_whole_prefix_is_right(self) -> None:
        opened = self.open()
        prefix = opened.prefix.encode()
        self.assertTrue(opened.is_before(prefix + b"/v2/x"))
        for wrong in (b"", b"/", prefix, prefix + b"x/v2/x", prefix[:-1] + b"/v2/x", b"/v2/x", prefix.upper() + b"/v2"):
            self.assertFalse(opened.is_before(wrong))

    def test_open_to_others_it_is_closed_and_told_without_the_secret(self) -> None:
        log = log_of(self)
        prefix = self.open().prefix
        self.path.chmod(0o644)
        self.open()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        (line,) = log.warnings("open to others")
        self.assertNotIn(prefix, line)

    def test_anything_else_in_the_file_stops_the_start(self) -> None:
        self.path.parent.mkdir()
        for text in ("", "/k/short", "/k/" + "x" * 43 + "\n/k/"):
            self.path.write_text(text)
            with self.assertRaisesRegex(StartError, "holds no prefix"):
                self.open()
        self.path.unlink()
        self.path.mkdir()
        with self.assertRaises(StartError):
            self.open()
