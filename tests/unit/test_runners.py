"""What runs on asyncio's reactor finds no other one installed, and what failed is named."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import programs, runners

ROOT = Path(runners.__file__).parents[1]


class OutputTests(SynchronousTestCase):
    def test_what_failed_is_named_with_its_file(self) -> None:
        named = [
            "FAILED tests/integration/test_twistd.py::test_a_busy_port_refuses - AssertionError",
            "ERROR tests/integration/test_clock.py::test_everything_goes_on[3600.0] - left behind:",
        ]
        output = f"F..E\nError: what dapi said\n=== short test summary info ===\n{named[0]}\n{named[1]}\n2 failed\n"
        self.assertEqual(runners.failures_of(output), named)


class LeftOutTests(SynchronousTestCase):
    """What cannot run on this machine is told at the end."""

    def setUp(self) -> None:
        self.told = Path(self.mktemp())
        self.patch(runners, "_LEFT_OUT", self.told)

    def summary(self, output: str) -> list[str]:
        self.told.write_text("".join(f"{line}\n" for line in runners.left_out_of(output)))
        written = io.StringIO()
        with redirect_stdout(written):
            runners.summary()
        return written.getvalue().splitlines()

    def test_is_named_with_its_reason_in_the_last_lines(self) -> None:
        reason = "for want of promtool (Debian: prometheus)"
        lines = self.summary(f"SKIPPED [2] tests/integration/ops/test_prometheus.py:21: {reason}\n1 passed")
        self.assertIn("left out", lines[0])
        self.assertEqual(lines[1:], [f"2 of tests/integration/ops/test_prometheus.py: {reason}"])

    def test_nothing(self) -> None:
        self.assertEqual(self.summary("5 passed\n"), ["== all passed, and none was left out"])

    def test_pytest_writes_such_lines_unless_nothing_may_be_left_out(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        program = next(iter(programs.PACKAGES))
        test = folder / "test_it.py"
        test.write_text(
            "from tests import programs\n\n"
            f"@programs.needs({program!r})\ndef test_it() -> None:\n    programs.run({program!r}, '--version')\n"
        )
        # A machine with nothing but Python.
        bare = {"PATH": str(folder.absolute()), "PYTHONPATH": str(ROOT)}
        pytest = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:pytest_twisted", str(test.absolute())]
        done = subprocess.run(pytest, cwd=folder, env=bare, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        (told,) = runners.left_out_of(done.stdout)
        self.assertTrue(told.endswith(f"for want of {program} (Debian: {programs.PACKAGES[program]})"), told)
        strict = bare | {programs.NOTHING_IS_LEFT_OUT: "1"}
        done = subprocess.run(pytest, cwd=folder, env=strict, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(f"install Debian's package {programs.PACKAGES[program]}", done.stdout)

    def test_ci_installs_each_program_and_leaves_nothing_out(self) -> None:
        script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        for program, package in programs.PACKAGES.items():
            self.assertRegex(script, rf"(?m)^\s*{program}:{package}$")
        self.assertIn(f"export {programs.NOTHING_IS_LEFT_OUT}=", script)


class AsyncioTests(SynchronousTestCase):
    def test_the_files_are_there(self) -> None:
        for name in runners._ON_ASYNCIO:
            self.assertTrue((ROOT / runners._FOLDER / name).is_file(), name)

    def test_no_conftest_installs_a_reactor_before_pytest_twisted_does(self) -> None:
        folders = {(runners._FOLDER / name).parent for name in runners._ON_ASYNCIO} | {runners._FOLDER}
        paths = [folder / "conftest.py" for folder in sorted(folders)]
        names = [".".join(path.with_suffix("").parts) for path in paths if (ROOT / path).exists()]
        self.assertTrue(names)
        code = f"import sys, {', '.join(names)}; sys.exit('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False)
        self.assertEqual(done.returncode, 0, names)
