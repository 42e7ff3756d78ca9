"""The catalogue, the checks and docs/problems.md speak of the same problems."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.catalogue import ProblemId, Severity

ROOT = Path(__file__).parents[3]
CHAPTERS = re.compile(r"^### (.+)$", re.MULTILINE)


def used_in(path: Path) -> set[str]:
    """The ids that a file names, as ProblemId.NAME."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ProblemId"
    }


class CatalogueTests(SynchronousTestCase):
    def test_each_id_has_a_chapter_and_each_chapter_an_id(self) -> None:
        text = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
        chapters = CHAPTERS.findall(text)
        self.assertEqual(sorted(chapters), sorted(problem_id.chapter for problem_id in ProblemId))
        for problem_id, chapter in zip(chapters, CHAPTERS.split(text)[2::2], strict=True):
            # What it means, and what to do.
            paragraphs = [each for each in chapter.partition("\n## ")[0].split("\n\n") if each.strip()]
            self.assertGreaterEqual(len(paragraphs), 2, problem_id)

    def test_a_chapter_is_its_own_anchor(self) -> None:
        for problem_id in ProblemId:
            self.assertRegex(problem_id.chapter, r"^[a-z0-9]+(-[a-z0-9]+)*$")
        text = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"\]\(#([^)]+)\)", text)) - set(ProblemId), set())

    def test_each_id_has_a_check(self) -> None:
        found = set().union(
            *(used_in(path) for path in (ROOT / "dapi" / "diagnosis").glob("*.py") if path.stem != "catalogue")
        )
        self.assertEqual(found, {problem_id.name for problem_id in ProblemId})

    def test_each_id_is_found_by_a_test(self) -> None:
        tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
        found = {each for each in ProblemId if f'"{each}"' in tests or f"ProblemId.{each.name}" in tests}
        # Those of the watch are found one by one for each of its troubles.
        self.assertEqual({each.part for each in ProblemId if each not in found}, {"PoC v2"})

    def test_lines(self) -> None:
        for problem_id in ProblemId:
            self.assertIn(problem_id.severity, Severity)
            self.assertTrue(problem_id.meaning.endswith("."))
            self.assertEqual(problem_id.name, problem_id.upper().replace("-", "_"))
