"""What README.md and CONTRIBUTING.md say is so: variables, commands, make targets, files."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.config import Config, load_config
from tests.unit.test_documents import VARIABLES, leaves
from tools.make_reference import commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# One screen.
MAX_LINES = 100


class ReadmeTests(SynchronousTestCase):
    def test_is_one_screen(self) -> None:
        self.assertLessEqual(README.count("\n"), MAX_LINES)

    def test_the_variables_of_the_example_are_understood(self) -> None:
        (example,) = re.findall(r"\n(NODE_CONFIG_PATH=.*?)```", README, re.DOTALL)
        environ = dict(re.findall(r"(\w+)=(\S+)", example))
        self.assertIn("DAPI_CHAIN_NODE__URL", environ)
        path = self.mktemp()
        Path(path).write_text("[]", encoding="utf-8")
        environ |= {"NODE_CONFIG_PATH": path, "ACCOUNT_PUBKEY": VARIABLES["ACCOUNT_PUBKEY"]}
        config, warnings = load_config(environ=environ)
        self.assertEqual(warnings, [])
        defaults = leaves(Config())
        found = leaves(config)
        # But for the path, each sets something.
        self.assertEqual(len([name for name in found if found[name] != defaults[name]]), len(environ) - 1)


class CommandTests(SynchronousTestCase):
    def test_commands_of_dapi_exist(self) -> None:
        told = re.findall(r"^(dapi [a-z-].*?) +#", README, re.MULTILINE)
        self.assertIn("dapi status", told)
        names = tuple(f"{name} " for name, _ in commands())
        self.assertEqual([line for line in told if not f"{line} ".startswith(names)], [])

    def test_make_targets_exist(self) -> None:
        targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        for text in (README, CONTRIBUTING):
            told = set(re.findall(r"(?:^|`| {4})make ([a-z0-9-]+)", text, re.MULTILINE))
            self.assertEqual(told - targets, set())
            self.assertIn("test", told)

    def test_files_exist(self) -> None:
        told = set(re.findall(r"(?<![\w./])(?:tests|dapi|tools|bench|docs)/[\w./-]*\w", README + CONTRIBUTING))
        self.assertIn("tests/unit/test_layers.py", told)
        self.assertEqual([name for name in told if not (ROOT / name).exists()], [])
