"""Mutation testing: changes each line of some rooms a little, and sees whether the room's unit tests notice.

``python -m tools.mutants [ROOM …]`` needs mutmut, which ``make mutants`` installs in ``build/mutmut``. It works in a
copy below ``build/mutants``, where ``mutmut show NAME`` tells what a mutant is. A mutant that lives is a line that no
unit test of its own room needs: the tests of other rooms are not run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOMS = ("messages", "phases", "outbox", "submission")
_ROOT = Path(__file__).parents[1]
_TOOL = _ROOT / "build" / "mutmut"
_COPIES = _ROOT / "build" / "mutants"
# mutmut runs each test many times in one process, which hypothesis takes for a mistake.
_PROFILE = """

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutants", suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, max_examples=30, database=None
)
settings.load_profile("mutants")
"""


def copy(room: str) -> Path:
    """Copy what git knows of this project, set up for one room; return the folder."""
    folder = _COPIES / room
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files"], cwd=_ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, folder / name)
    copied = "".join(f"\n    {name}" for name in ("dapi", "tests", "bench", "pyproject.toml"))
    config = f"[mutmut]\npaths_to_mutate=dapi/{room}/\ntests_dir=tests/unit/{room}/\nalso_copy={copied}\n"
    (folder / "setup.cfg").write_text(config, encoding="utf-8")
    with (folder / "tests" / "unit" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(_PROFILE)
    # mutmut itself uses what is deprecated.
    options = folder / "pyproject.toml"
    text = options.read_text(encoding="utf-8")
    options.write_text(text.replace("filterwarnings = [", 'filterwarnings = ["ignore::DeprecationWarning",'))
    return folder


def test(room: str, processes: int) -> None:
    """Make and try the mutants of one room, and print what became of them."""
    folder = copy(room)
    environment = {**os.environ, "PYTHONPATH": str(_TOOL)}
    mutmut = [sys.executable, "-m", "mutmut"]
    print(f"== {room}", flush=True)
    subprocess.run([*mutmut, "run", "--max-children", str(processes)], cwd=folder, env=environment, check=False)
    tell = [*mutmut, "results", "--all", "true"]
    told = subprocess.run(tell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    results = [line.strip().partition(": ") for line in told.stdout.splitlines() if ": " in line]
    counts = Counter(result for _, _, result in results)
    tried = counts["killed"] + counts["survived"] + counts["timeout"]
    for name, _, result in results:
        if result == "survived":
            print(f"{name} lives")
    noticed = tried - counts["survived"]
    print(f"== {room}: {dict(counts)}; of {tried} that tests reach, {noticed} are noticed", flush=True)


def main() -> None:
    """Test the rooms that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("rooms", nargs="*", default=ROOMS, metavar="ROOM")
    options = parser.parse_args()
    for room in options.rooms:
        test(room, options.processes)


if __name__ == "__main__":
    main()
