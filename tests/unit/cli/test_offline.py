"""``dapi restore`` and ``dapi check``, which ask no dapi."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dapi.cli import check as check_module
from dapi.cli.checks.result import failed, passed, skipped
from dapi.database.file import open_prepared, take_lock
from tests.unit.cli.cli_case import CliTestCase


class RestoreTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path, self.copy = folder / "outbox.db", folder / "copy.db"
        for path in (self.path, self.copy):
            open_prepared(path).close()
        self.arguments = ("restore", str(self.copy), "--database", str(self.path))

    def test_asks_tells_and_moves_aside(self) -> None:
        self.assertIn("nothing was done", self.refused(*self.arguments, typed="n\n"))
        told = json.loads(self.run_dapi(*self.arguments, "--yes", "--json").stdout)
        self.assertEqual((told["restored"], told["from"], told["batches"]), (str(self.path), str(self.copy), {}))
        self.assertTrue(Path(told["moved_to"]).exists())
        result = self.run_dapi(
            "restore", str(self.copy), "-d", str(self.path.with_name("new.db")), "--json", typed="y\n"
        )
        self.assertIsNone(json.loads(result.stdout[result.stdout.index("{") :])["moved_to"])

    def test_where_the_database_is_says_the_configuration(self) -> None:
        config = self.path.with_name("config.yaml")
        config.write_text(f"storage: {{path: {self.path.with_name('other.db')}}}", encoding="utf-8")
        self.run_dapi("restore", str(self.copy), "--config", str(config), "--yes", "--json")
        self.assertTrue(self.path.with_name("other.db").exists())

    def test_refused(self) -> None:
        self.assertIn("missing", self.refused("restore", "/nowhere.db", "-d", str(self.path), "--yes"))
        self.assertIn("cannot be read", self.refused("restore", str(self.copy), "-c", "/nowhere.yaml", "--yes"))
        lock = take_lock(self.path)
        self.addCleanup(os.close, lock)
        self.assertIn("in use", self.refused(*self.arguments, "--yes"))


class CheckTests(CliTestCase):
    def find(self, *checks: object) -> None:
        self.patch(check_module, "_all_checks", lambda *_: list(checks))

    def test_all_is_well(self) -> None:
        self.find(passed("key", "signs for gonka1"), skipped("grants", "it needs none"))
        lines = self.shown("check").splitlines()
        self.assertEqual(lines, ["PASS key", "signs for gonka1", "SKIPPED grants", "it needs none", "no check failed"])

    def test_one_failed(self) -> None:
        self.find(passed("a", "b"), failed("disk", "is full", "make room"))
        lines = self.shown("check", code=3).splitlines()
        self.assertEqual(lines[2:], ["FAIL disk", "is full", "to do: make room", "1 of 2 checks failed"])
        told = self.told("check", code=3)
        self.assertEqual(told["failed"], 1)
        self.assertEqual(
            told["checks"][1], {"name": "disk", "result": "FAIL", "found": "is full", "to_do": "make room"}
        )

    def test_settings_that_cannot_be_used(self) -> None:
        told = self.told("check", "--config", "/nowhere.yaml", code=3)
        self.assertEqual([(each["name"], each["result"]) for each in told["checks"]], [("settings", "FAIL")])
