"""What runs on asyncio's reactor finds no other one installed, and what failed is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import runners

ROOT = Path(runners.__file__).parents[1]


class OutputTests(SynchronousTestCase):
    def test_what_failed_is_named_with_its_file(self) -> None:
        named = [
            "FAILED tests/integration/test_twistd.py::test_a_busy_port_refuses - AssertionError",
            "ERROR tests/integration/test_clock.py::test_everything_goes_on[3600.0] - left behind:",
        ]
        output = f"F..E\nError: what dapi said\n=== short test summary info ===\n{named[0]}\n{named[1]}\n2 failed\n"
        self.assertEqual(runners.failures_of(output), named)


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
