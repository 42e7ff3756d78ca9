"""Asks for known vulnerabilities of what a host installs: ``python -m tools.audit`` (``make audit``).

pip-audit, which ``make audit`` installs in ``build/pip-audit``, asks the package index about each distribution of
``requirements.txt``. The exit code is 1 when one has a known vulnerability, and 2 when that cannot be told: an index
that does not answer, or knows nothing of a distribution, says nothing about it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_TOOL = _ROOT / "build" / "pip-audit"
_COMMAND = ("-m", "pip_audit", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement")


def judge(dependencies: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """Return the exit code, and the lines to print, for what pip-audit says of each distribution."""
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}"
        for each in dependencies
        for vulnerability in each.get("vulns", ())
    ]
    unknown = [each["name"] for each in dependencies if "skip_reason" in each]
    lines = [*found, f"{len(dependencies) - len(unknown)} of {len(dependencies)} were audited"]
    if unknown or not dependencies:
        lines.append(f"not known, because the index does not tell of them: {', '.join(unknown) or 'all'}")
    return (1 if found else 2 if unknown or not dependencies else 0), lines


def main() -> int:
    """Ask, and print what is known."""
    command = [sys.executable, *_COMMAND, str(_ROOT / "requirements.txt")]
    environment = {**os.environ, "PYTHONPATH": str(_TOOL)}
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"nothing is known, because the index cannot be asked: {asked.stderr.strip().rpartition(chr(10))[2]}")
        return 2
    code, lines = judge(dependencies)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
