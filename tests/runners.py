"""Runs the tests: ``python -m tests.runners unit`` and ``python -m tests.runners integration``.

Unit tests run under pytest and then under trial, and both must have run the same number of them: each runner skips in
silence what it does not recognise (trial a pytest function, pytest a file of another name).

Integration tests wait most of their time, so their files are shared out to a few pytest processes side by side. Some of
them run once more, on asyncio's reactor: whoever embeds dapi may have that one. What each process wrote is kept in
``build/integration``; the last lines name what failed, each with its file. ``python -m tests.runners summary`` says at
the end of all which tests were left out, and for want of what.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_PROCESSES = 3
_FOLDER = Path("tests/integration")
_OUTPUT = Path("build/integration")
_LEFT_OUT = _OUTPUT / "left-out"
# The whole tree and the sockets: what is the reactor's business.
_ON_ASYNCIO = ("service/test_assembly.py", "service/test_lifecycle.py", "websocket/test_sockets.py")


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


def unit() -> None:
    """Run the unit tests under both, and compare."""
    by_pytest = run("unit tests, by pytest", "pytest", "-q", "tests/unit")
    summary = by_pytest.rstrip().rpartition("\n")[2]
    pytest_count = sum(int(count) for count in re.findall(r"(\d+) (?:passed|skipped|xfailed|xpassed)", summary))
    trial = ("twisted.trial", "--reporter=text", "--temp-directory=build/trial")
    by_trial = run("unit tests, by trial", *trial, "tests.unit")
    ran = re.search(r"^Ran (\d+) tests", by_trial, re.MULTILINE)
    trial_count = int(ran.group(1)) if ran else 0
    if not pytest_count or pytest_count != trial_count:
        sys.exit(f"pytest ran {pytest_count} unit tests and trial {trial_count}: each has to run all of them")


def integration() -> None:
    """Run the integration tests in several processes; leave with the first exit code that is not 0.

    Each of the processes ends with the tests that took longest; the last lines name those that failed.
    """
    files = sorted(str(path) for path in _FOLDER.rglob("test_*.py"))
    parts = {f"part {number + 1} of {_PROCESSES}": files[number::_PROCESSES] for number in range(_PROCESSES)}
    parts["on asyncio"] = ["--reactor=asyncio", *(str(_FOLDER / name) for name in _ON_ASYNCIO)]
    shutil.rmtree(_OUTPUT, ignore_errors=True)
    _OUTPUT.mkdir(parents=True)
    started = []
    for name, arguments in parts.items():
        output = _OUTPUT / f"{name.replace(' ', '-')}.log"
        command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "--durations=5", *arguments]
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        started.append((name, process, output))
    failed, failures, left_out = 0, [], []
    for name, process, output in started:
        code = process.wait()
        print(f"== integration tests, {name}")
        text = output.read_text(errors="replace")
        print(text, end="", flush=True)
        failures += [f"{line} ({output})" for line in failures_of(text)]
        left_out += left_out_of(text)
        failed = failed or code
    _LEFT_OUT.write_text("".join(f"{line}\n" for line in left_out), encoding="utf-8")
    for line in failures:
        print(line, flush=True)
    sys.exit(failed)


def failures_of(output: str) -> list[str]:
    """Return the lines in which pytest names, with its file, each test that failed."""
    return re.findall(r"^(?:FAILED|ERROR) \S+::.*", output, re.MULTILINE)


def left_out_of(output: str) -> list[str]:
    """Return for each group of tests that pytest left out how many, in which file, and why."""
    return [
        f"{number} of {file}: {reason}"
        for number, file, reason in re.findall(r"^SKIPPED \[(\d+)\] (\S+?)(?::\d+)?: (.*)$", output, re.MULTILINE)
    ]


def summary() -> None:
    """Say that all passed, and which tests were left out."""
    left_out = _LEFT_OUT.read_text(encoding="utf-8").splitlines()
    if not left_out:
        print("== all passed, and none was left out")
        return
    print("== all passed but these, which were left out:")
    print("\n".join(left_out))


if __name__ == "__main__":
    {"unit": unit, "integration": integration, "summary": summary}[sys.argv[1]]()
