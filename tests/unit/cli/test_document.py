"""docs/cli.md tells of each command, option and exit code that there is, and of no other."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.cli.exit_codes import ExitCode
from dapi.cli.session import DEFAULT_URL
from tools.make_reference import commands

DOCUMENT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMON = {"--json", "--url", "--token-file", "--ca-file", "--help"}


def sections() -> dict[str, str]:
    """What the document says below each heading that names a command."""
    parts = re.split(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name.startswith("dapi ")}


class DocumentTests(SynchronousTestCase):
    def test_each_command_has_a_section_and_each_section_a_command(self) -> None:
        self.assertEqual(sorted(sections()), sorted(name for name, _ in commands()))

    def test_each_option_that_the_text_tells_of_exists(self) -> None:
        """What stands between the marks is made of the options: tests/unit/test_documents.py looks at it."""
        found = sections()
        for name, command in commands():
            real = {option for parameter in command.params for option in parameter.opts}
            text = re.sub(r"<!-- begin .*?<!-- end ", "", found[name], flags=re.DOTALL)
            told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.replace(f"{name} --help", "")))
            self.assertEqual(told - real, set(), name)

    def test_each_form_of_json_is_told(self) -> None:
        for name, text in sections().items():
            if name not in ("dapi export", "dapi completion"):
                self.assertIn("`--json`: ", text, name)

    def test_exit_codes(self) -> None:
        rows = re.findall(r"^\| (\d+) \| \S", DOCUMENT, re.MULTILINE)
        self.assertEqual(rows, [str(code.value) for code in ExitCode])

    def test_common_options(self) -> None:
        told = re.findall(r"^\| `(--[a-z-]+)", DOCUMENT, re.MULTILINE)
        self.assertEqual({*told, "--help"}, COMMON)
        self.assertIn(DEFAULT_URL, DOCUMENT)
