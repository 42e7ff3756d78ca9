"""The tests that docs/faults.md and docs/traps.md name are there."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (?!fault |trap |---).*\|$", re.MULTILINE)


class NamedTestsTests(SynchronousTestCase):
    def test_each_test_that_is_named_exists(self) -> None:
        for document, at_least in (("faults.md", 50), ("traps.md", 55)):
            text = (ROOT / "docs" / document).read_text(encoding="utf-8")
            named = NAMED.findall(text)
            self.assertGreaterEqual(len(named), at_least, document)
            missing = [f"{path}::{name}" for path, name in named if not self.is_there(path, name)]
            self.assertEqual(missing, [], document)

    def test_each_row_names_one(self) -> None:
        for document in ("faults.md", "traps.md"):
            text = (ROOT / "docs" / document).read_text(encoding="utf-8")
            rows = ROW.findall(text)
            self.assertEqual([row for row in rows if not NAMED.search(row)], [], document)

    def is_there(self, path: str, name: str) -> bool:
        file = ROOT / path
        return file.exists() and re.search(rf"def {name}\(", file.read_text(encoding="utf-8")) is not None
