"""What CONTRIBUTING.md says of the code is so: the rooms, and the functions of its examples."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import State
from tests.unit.test_layers import ROOMS

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

# `name` in `file`, also with a comma between: `name`, in `file`
PLACED = re.compile(r"`([A-Za-z_][\w.]*)`,?\s+in\s+`([\w/]+\.py)`")


def section(heading: str) -> str:
    _, found, rest = CONTRIBUTING.partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0]


def first_column(text: str) -> list[str]:
    """The first cells of a table, without the two rows of its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [row.split("|")[1].strip() for row in rows]


def names_in(path: Path) -> set[str]:
    """All classes, functions and constants of a file, methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            names.update(f"{node.name}.{method.name}" for method in methods)
    return names


class ExampleTests(SynchronousTestCase):
    def test_each_function_is_in_the_file_that_is_named(self) -> None:
        placed = PLACED.findall(section("To change …"))
        self.assertGreaterEqual(len(placed), 10)
        for name, file in placed:
            self.assertTrue((ROOT / file).is_file(), file)
            self.assertIn(name, names_in(ROOT / file), file)

    def test_each_example_names_a_place(self) -> None:
        examples = section("To change …").split("\n- ")[1:]
        self.assertEqual(len(examples), 6)
        for example in examples:
            self.assertRegex(example, PLACED)


class RoomTests(SynchronousTestCase):
    def test_the_map_has_each_room_in_the_order_of_imports(self) -> None:
        self.assertEqual(tuple(cell.strip("`") for cell in first_column(section("The rooms"))), ROOMS)


class WordTests(SynchronousTestCase):
    def test_each_word_has_one_meaning(self) -> None:
        words = [word for cell in first_column(section("Words")) for word in cell.split(", ")]
        self.assertEqual(len(words), len(set(words)))
        self.assertEqual({state.value for state in State} - set(words), set())
