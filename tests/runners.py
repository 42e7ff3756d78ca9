"""Runs the unit tests under pytest, then under trial, and fails unless both ran the same number of them.

Each runner skips in silence what it does not recognise: trial a pytest function, pytest a file of another name.
"""

from __future__ import annotations

import re
import subprocess
import sys


def run(heading: str, *arguments: str) -> str:
    """Run a Python module, showing its output as it comes; return that output, or leave with its exit code."""
    print(f"== {heading}", flush=True)
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as runner:
        assert runner.stdout is not None
        for line in runner.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if runner.returncode:
        sys.exit(runner.returncode)
    return "".join(lines)


def main() -> None:
    """Run both and compare."""
    by_pytest = run("unit tests, by pytest", "pytest", "-q", "tests/unit")
    summary = by_pytest.rstrip().rpartition("\n")[2]
    pytest_count = sum(int(count) for count in re.findall(r"(\d+) (?:passed|skipped|xfailed|xpassed)", summary))
    trial = ("twisted.trial", "--reporter=text", "--temp-directory=build/trial")
    by_trial = run("unit tests, by trial", *trial, "tests.unit")
    ran = re.search(r"^Ran (\d+) tests", by_trial, re.MULTILINE)
    trial_count = int(ran.group(1)) if ran else 0
    if not pytest_count or pytest_count != trial_count:
        sys.exit(f"pytest ran {pytest_count} unit tests and trial {trial_count}: each has to run all of them")


if __name__ == "__main__":
    main()
