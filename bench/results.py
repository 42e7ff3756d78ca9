"""The file of results, ``bench/results.json``: each benchmark writes its own section, and leaves the others.

::

    intake      {nonces: {side: batches/s}}, with 16 outstanding; the same in intake_1 and intake_256
    http        {nonces: {side: callbacks/s}}, over 16 connections
    go, go_1    as intake and intake_1, beside clients in Go
    cpu_us      {nonces: {side: CPU time of the receiver for a batch in microseconds}}; by HTTP: http_dapi …
    ratios      {section: {nonces: {side: dapi's rate over the side's, the median of the rounds}}}
    rounds      {section: {nonces: {side: all of its figures}}}; see ``bench.comparison``
    measured    {section: when it was measured, of which commit, in how many seconds, and with which load}
    machine     what it was measured on
    steps, nodes, signing, outbox_to_block, large_stage, relay, relay_nginx, scrape, year: what each of these prints
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.processes import cores

_FOLDER = Path(__file__).parent
_DISTRIBUTIONS = ("Twisted", "autobahn", "klein", "msgspec", "pysimdjson", "websockets", "picows", "aiohttp")


def path() -> Path:
    """Return where the file is: at BENCH_RESULTS, or in this folder."""
    return Path(os.environ.get("BENCH_RESULTS", _FOLDER / "results.json"))


def read() -> dict[str, Any]:
    """Return what is in the file; nothing when there is none."""
    try:
        found: dict[str, Any] = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    return found


class Section:
    """A section of the file; it is made when the measuring begins, and knows the load of then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._load = load()
        self._begun_at = time.time()

    def write(self, value: Mapping[str, Any]) -> None:
        """Put this into the file, in place of what the section says there."""
        self._write({self._name: value})

    def write_rounds(self, rounds: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Put the rounds of a comparison into the file, by nonces and side, with what follows from them."""
        rates = {size: {name: side["rate"]["median"] for name, side in sides.items()} for size, sides in rounds.items()}
        ratios = {
            size: {name: side["ratio"]["median"] for name, side in sides.items() if "ratio" in side}
            for size, sides in rounds.items()
        }
        self._write({self._name: rates}, rounds=rounds, ratios=ratios)

    def _write(self, sections: dict[str, Any], **shared: Any) -> None:
        results = read() | sections
        measured = {
            "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._begun_at)),
            "commit": commit(),
            "seconds": round(time.time() - self._begun_at, 1),
            "load": [self._load, load()],
        }
        for name, value in {**shared, "measured": measured}.items():
            results[name] = results.get(name, {}) | {self._name: value}
        results["cpu_us"] = _cpu_us(results.get("rounds", {}))
        results["machine"] = machine()
        new = path().with_suffix(".new")
        new.write_text(json.dumps(results, indent=1) + "\n")
        new.replace(path())


def machine() -> dict[str, Any]:
    """Return what this machine is, and what is installed."""
    versions = {"SQLite": sqlite3.sqlite_version}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": _cpu(),
        "cores": len(cores()) or os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
        "load": load(),
    }


def load() -> float:
    """Return how many processes wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _cpu_us(rounds: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for section in ("go", "intake", "http"):
        for size, sides in rounds.get(section, {}).items():
            for name, side in sides.items():
                key = f"http_{name}" if section == "http" else name
                found.setdefault(size, {})[key] = side["cpu_us"]["median"]
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    """Return the commit of the sources, with a + when they were changed since."""
    try:
        command = ["git", "-C", str(_FOLDER), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
