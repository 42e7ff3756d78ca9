"""Which room may import which: the table of the design, read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dapi

ROOT = Path(dapi.__file__).parent

# The rooms, from the ground up: a room may import itself and the rooms before it.
ROOMS = (
    *("errors", "timing", "messages", "http", "websocket", "database", "outbox", "poc", "mlnode", "chain", "phases"),
    *("broker", "submission", "relay", "orchestration", "diagnosis", "server", "network_config", "config"),
    *("chain_service", "service", "tap", "cli", "simulator"),
)
# The simulator is the other side: of dapi's own rooms it may use these alone, so that no mistake is made on both sides.
SIMULATOR_MAY_IMPORT = {"messages", "http", "websocket", "timing"}
# They run dapi as its users do, beside the simulator; nothing imports them.
DEMOS = ("simulator/demo.py", "simulator/demo_v2.py")
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


def rooms_before(room: str) -> tuple[str, ...]:
    return ROOMS[: ROOMS.index(room)]


def module_of(path: Path) -> str:
    """The full name of the module in a file; a package's is its ``__init__``."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)


def known_module(name: str) -> str | None:
    """The module of dapi that is imported by this name, which may go on with a name inside it."""
    while name:
        for module in (name, f"{name}.__init__"):
            if module in MODULES:
                return module
        name = name.rpartition(".")[0]
    return None


SOURCES = {
    path: ast.parse(path.read_text())
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent != ROOT or path.name != "__init__.py"
}

MODULES = {module_of(path) for path in SOURCES}


class LayerTests(SynchronousTestCase):
    """No room reaches into one that it must not know."""

    def test_every_room_is_listed(self) -> None:
        self.assertEqual({room_of(path) for path in SOURCES}, set(ROOMS))

    def test_rooms_import_only_rooms_before_them(self) -> None:
        for path, tree in SOURCES.items():
            room, place = room_of(path), str(path.relative_to(ROOT))
            may_import = {*SIMULATOR_MAY_IMPORT, "simulator"} if room == "simulator" else {*rooms_before(room), room}
            if place in DEMOS:
                may_import = set(ROOMS)
            too_far = {name.split(".")[1] for name in imported(tree) if name.startswith("dapi.")} & set(ROOMS)
            self.assertEqual(too_far - may_import, set(), f"{place} imports what {room} must not know")

    def test_no_circle_of_modules(self) -> None:
        imports = {
            module_of(path): {other for name in imported(tree) if (other := known_module(name)) is not None}
            for path, tree in SOURCES.items()
        }
        try:
            tuple(TopologicalSorter(imports).static_order())
        except CycleError as error:
            self.fail(f"these modules import each other: {error.args[1]}")

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
