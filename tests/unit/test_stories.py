"""What the docstrings of the packages name exists: who renames a function tells the story anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dapi

ROOT = Path(dapi.__file__).parent
NAMED = re.compile(r"``([A-Za-z_][A-Za-z_0-9]*)(?:\.([A-Za-z_][A-Za-z_0-9]*))?(?:\([^`]*\))?``")


def members() -> dict[str, set[str]]:
    """The functions of each class of dapi, and below the empty name all functions, classes, fields and modules."""
    found: dict[str, set[str]] = {"": set()}
    for path in ROOT.rglob("*.py"):
        found[""] |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                functions = {
                    each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                }
                found.setdefault(node.name, set()).update(functions)
                found[""] |= {node.name, *functions}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[""].add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found[""].add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


class StoryTests(SynchronousTestCase):
    def test_what_a_package_names_exists(self) -> None:
        known = members()
        for path in ROOT.glob("*/__init__.py"):
            story = ast.get_docstring(ast.parse(path.read_text())) or ""
            for first, second in NAMED.findall(story):
                exists = second in known.get(first, known[""]) if second else first in known[""]
                self.assertTrue(exists, f"{path.parent.name}: {first}.{second}" if second else first)
