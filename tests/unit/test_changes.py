"""Each fragment of the changelog has a name that towncrier understands, and says something."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]


class FragmentTests(SynchronousTestCase):
    def test_each_has_a_kind_and_a_text(self) -> None:
        kinds = "|".join(kind["directory"] for kind in SETTINGS["type"])
        fragments = [path for path in (ROOT / SETTINGS["directory"]).iterdir() if path.name != "README.md"]
        for path in fragments:
            # A fragment of another name would be left out without a word.
            self.assertTrue(re.fullmatch(rf"\+[a-z0-9-]+\.({kinds})\.md", path.name), path.name)
            self.assertTrue(path.read_text(encoding="utf-8").strip().endswith("."), path.name)

    def test_the_changelog_has_the_place_for_the_next_entry(self) -> None:
        changelog = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
        self.assertEqual(changelog.count(SETTINGS["start_string"]), 1)
