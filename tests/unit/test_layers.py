"""Which room may import which: the table of the design, read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dapi

ROOT = Path(dapi.__file__).parent

# A room may import itself and these.
MAY_IMPORT = {
    "errors": set(),
    "messages": {"errors"},
    "database": {"errors"},
    "exchange": set(),
    "websocket": {"errors", "timer"},
    "poc": {"messages", "errors", "websocket", "timer"},
    "mlnode": {"messages", "errors", "exchange"},
    "chain": {"messages", "errors", "database", "exchange", "websocket", "loop"},
    "broker": {"poc", "mlnode", "messages", "errors", "database", "timer"},
    "orchestration": {"chain", "broker", "mlnode", "messages", "errors", "timer", "loop"},
    "timer": set(),
    "loop": set(),
    "server": {"broker", "poc", "messages", "errors"},
    "simulator": {"messages", "errors"},
    "config": {"errors", "broker"},
    "chain_service": {"chain", "broker", "orchestration", "mlnode", "errors", "database", "config"},
    "service": {
        *("poc", "websocket", "mlnode", "chain", "broker", "server", "messages", "errors", "database", "config"),
        "chain_service",
    },
    "tap": {"config", "service", "errors"},
}
# Runs dapi as its users do, beside the simulator; nothing imports it.
EXCEPT = {"simulator/demo.py"}
# Importing these installs a reactor, or is one.
NOT_AT_THE_TOP = ("klein", "twisted.internet.reactor", "twisted.web.client.reactor")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, anywhere in the tree, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_the_top(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module is: everything outside functions and ``if TYPE_CHECKING``."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not is_for_types:
            yield from imported(node)


def room_of(path: Path) -> str:
    """The room of a file: its folder below dapi, or its name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


SOURCES = {
    path: ast.parse(path.read_text())
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent != ROOT or path.name != "__init__.py"
}


class LayerTests(SynchronousTestCase):
    """No room reaches into one that it must not know."""

    def test_every_room_is_listed(self) -> None:
        self.assertEqual({room_of(path) for path in SOURCES} - MAY_IMPORT.keys(), set())

    def test_rooms_import_only_what_they_may(self) -> None:
        for path, tree in SOURCES.items():
            room = room_of(path)
            if str(path.relative_to(ROOT)) in EXCEPT:
                continue
            rooms = {name.split(".")[1] for name in imported(tree) if name.startswith("dapi.")}
            too_far = {other for other in rooms & MAY_IMPORT.keys() if other != room} - MAY_IMPORT[room]
            self.assertEqual(too_far, set(), f"{path.relative_to(ROOT)} imports what {room} must not know")

    def test_only_the_demo_imports_the_simulator(self) -> None:
        for path, tree in SOURCES.items():
            if room_of(path) != "simulator":
                self.assertFalse([name for name in imported(tree) if name.startswith("dapi.simulator")], path)

    def test_nothing_at_the_top_installs_a_reactor(self) -> None:
        for path, tree in SOURCES.items():
            found = [name for name in at_the_top(tree) if name.startswith(NOT_AT_THE_TOP)]
            self.assertEqual(found, [], path.relative_to(ROOT))


class SizeTests(SynchronousTestCase):
    """What nobody can read at once is split."""

    def test_no_file_above_400_lines(self) -> None:
        files = [*SOURCES, *Path(__file__).parents[1].rglob("*.py")]
        long = {path.name for path in files if path.read_text().count("\n") > 400}
        self.assertEqual({name for name in long if not name.endswith("_pb2.py")}, set())

    def test_no_function_above_50_lines(self) -> None:
        long = [
            f"{path.relative_to(ROOT)}: {node.name}"
            for path, tree in SOURCES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 50
        ]
        self.assertEqual(long, [])
