"""Programs that some integration tests run, and that not every machine has.

A test that is marked with ``needs`` is left out where its program is missing; the last lines of ``make test`` name it.
With DAPI_LEAVE_NOTHING_OUT in the environment it fails instead: so does ``.ci/run``, which installs the programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

PACKAGES = {"promtool": "prometheus", "chromium": "chromium", "nginx": "nginx-light", "systemd-analyze": "systemd"}
"""The Debian package of each program."""
# Where root's programs are is not on everybody's path.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))

NOTHING_IS_LEFT_OUT = "DAPI_LEAVE_NOTHING_OUT"


def needs(program: str) -> pytest.MarkDecorator:
    """Leave a test out where this program is missing."""
    is_left_out = shutil.which(program, path=_PATH) is None and not os.environ.get(NOTHING_IS_LEFT_OUT)
    return pytest.mark.skipif(is_left_out, reason=f"for want of {program} (Debian: {PACKAGES[program]})")


def path_of(program: str) -> str:
    """Return where a program is; AssertionError when it is missing."""
    path = shutil.which(program, path=_PATH)
    assert path is not None, f"there is no {program}: install Debian's package {PACKAGES[program]}"
    return path


def run(program: str, *arguments: str, text: bytes = b"") -> str:
    """Run a program with ``text`` as its input; return what it wrote, AssertionError when it fails or is missing."""
    done = subprocess.run([path_of(program), *arguments], input=text, capture_output=True, timeout=120, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output
