"""The bench of abuses runs, and prints its table; what the numbers are is for a quiet machine."""

from __future__ import annotations

import re
import sys

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue


@pytest_twisted.ensureDeferred
async def test_a_short_one() -> None:
    times = ["--quiet-seconds", "2", "--seconds", "2", "--again", "0"]
    arguments = ["-m", "bench.abuse", "--nodes", "3", *times, "--abuse", "bad JSON"]
    out, err, code = await getProcessOutputAndValue(sys.executable, arguments, env=None, reactor=reactor)
    row = re.search(rb"^\| bad JSON \| (\d+), \d+ \| (\d+) \| .*\|$", out, re.MULTILINE)
    assert row is not None, (out, err)
    connections, acks = int(row[1]), int(row[2])
    assert connections >= 1
    assert acks >= 3
    assert code == (1 if b"bad JSON: " in err else 0)
    # Medians, 99th percentiles, the longest turns and writes: each without the abuse, and beside it.
    assert len(re.findall(rb"[\d.]+ \xe2\x86\x92 [\d.]+", row[0])) == 4, row[0]
