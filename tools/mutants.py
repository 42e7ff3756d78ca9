"""Mutation testing: changes each line of some rooms a little, and sees whether the room's unit tests notice.

``python -m tools.mutants [ROOM …]`` needs mutmut, which ``make mutants`` installs in ``build/mutmut``. It works in a
copy below ``build/mutants``, where ``mutmut show NAME`` tells what a mutant is. A mutant that lives is a line that no
unit test of its own room needs: the tests of other rooms are not run.

A first run tries every mutant of a room. After new tests are written, ``--again`` tries those that lived or were not
reached, and those of functions that are new or changed; what was noticed counts as noticed still. ``--only 'GLOB'``
tries the mutants with such names, and keeps what is known of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOMS = ("messages", "phases", "outbox", "submission")
_ROOT = Path(__file__).parents[1]
_TOOL = _ROOT / "build" / "mutmut"
_COPIES = _ROOT / "build" / "mutants"
# In the words of mutmut, and as its exit codes of pytest.
_NOTICED = ("killed", "timeout", "segfault")
_NOTICED_CODES = (1, 3, 24, -24, 152, 255, 36, -9, -11)
# mutmut runs each test many times in one process, which hypothesis takes for a mistake. What a mutant keeps from coming
# is waited for shorter.
_PROFILE = """

from hypothesis import HealthCheck, settings

from tests.unit.database import store_tools

store_tools.PATIENCE_SECONDS = 10
settings.register_profile(
    "mutants", suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, max_examples=30, database=None
)
settings.load_profile("mutants")
"""


def copy(room: str, folder: Path) -> None:
    """Bring a copy of what git knows of this project up to date, set up for one room."""
    listed = subprocess.run(["git", "ls-files"], cwd=_ROOT, check=True, capture_output=True, text=True)
    files = {name: (_ROOT / name).read_bytes() for name in listed.stdout.splitlines() if (_ROOT / name).is_file()}
    copied = "".join(f"\n    {name}" for name in ("dapi", "tests", "bench", "pyproject.toml"))
    config = f"[mutmut]\nsource_paths=dapi/{room}/\npytest_add_cli_args_test_selection=tests/unit/{room}/\n"
    files["setup.cfg"] = f"{config}also_copy={copied}\n".encode()
    files["tests/unit/conftest.py"] += _PROFILE.encode()
    # mutmut itself uses what is deprecated.
    filters = b"filterwarnings = ["
    files["pyproject.toml"] = files["pyproject.toml"].replace(filters, filters + b'"ignore::DeprecationWarning",')
    for top in (folder, folder / "mutants"):
        for path in [*top.glob("dapi/**/*.py"), *top.glob("tests/**/*.py")]:
            if str(path.relative_to(top)) not in files:
                path.unlink()
    for name, content in files.items():
        path = folder / name
        # By its time mutmut sees which files are new.
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def forget_the_living(folder: Path) -> None:
    """Have mutmut try those once more that no test has noticed, as it does with what it has no result of."""
    for path in folder.glob("mutants/dapi/**/*.meta"):
        known = json.loads(path.read_bytes())
        codes = known["exit_code_by_key"]
        known["exit_code_by_key"] = {name: code if code in _NOTICED_CODES else None for name, code in codes.items()}
        path.write_text(json.dumps(known), encoding="utf-8")


def table(results: Mapping[str, str]) -> list[str]:
    """Return a line for each file, and one for all: how many mutants were noticed, and what became of the others."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, result in results.items():
        # A mutant is named after its module and its function.
        counts[name.rpartition(".")[0]][result] += 1
        counts["all"][result] += 1
    lines = []
    for name, of_file in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        noticed, number = sum(of_file[result] for result in _NOTICED), of_file.total()
        others = ", ".join(f"{of_file[result]} {result}" for result in sorted(of_file) if result != "killed")
        lines.append(f"{name}: {noticed} of {number} noticed ({noticed / number:.0%}); {others or 'no other'}")
    return lines


def test(room: str, processes: int, *, only: Sequence[str], is_again: bool) -> None:
    """Make and try the mutants of one room, and print what became of them."""
    folder = _COPIES / room
    if not only and not is_again:
        shutil.rmtree(folder, ignore_errors=True)
    copy(room, folder)
    if is_again:
        forget_the_living(folder)
    # A test that is changed may reach more than before.
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    print(f"== {room}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(_TOOL)}
    mutmut = [sys.executable, "-m", "mutmut"]
    run = [*mutmut, "run", "--max-children", str(processes), *only]
    subprocess.run(run, cwd=folder, env=environment, check=False)
    tell = [*mutmut, "results", "--all", "true"]
    told = subprocess.run(tell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    pairs = (line.strip().partition(": ") for line in told.stdout.splitlines() if ": " in line)
    results = {name: result for name, _, result in pairs}
    for name, result in results.items():
        if result not in _NOTICED:
            print(f"{name}: {result}")
    print("\n".join(table(results)), flush=True)


def main() -> None:
    """Test the rooms that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="the mutants with such names")
    parser.add_argument("--again", action="store_true", help="only those that lived, or that no test reached")
    parser.add_argument("rooms", nargs="*", default=ROOMS, metavar="ROOM")
    options = parser.parse_args()
    for room in options.rooms:
        test(room, options.processes, only=options.only, is_again=options.again)


if __name__ == "__main__":
    main()
