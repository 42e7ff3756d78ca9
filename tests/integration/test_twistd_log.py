"""The files that twistd writes its log into."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest_twisted

from tests.integration.twistd_process import Run, twistd
from tests.integration.waiting import until

__all__ = ["twistd"]


@pytest_twisted.ensureDeferred
async def test_sigusr1_begins_a_new_log_and_deletes_none(twistd: Run, tmp_path: Path) -> None:
    log = tmp_path / "dapi.log"
    process = twistd(log_file=str(log))
    await until(lambda: log.exists() and "admin: listening" in log.read_text())
    for number in (1, 2):
        process.signal(signal.SIGUSR1)
        await until((tmp_path / f"dapi.log.{number}").exists)
    assert "admin: listening" in (tmp_path / "dapi.log.2").read_text()
    process.signal("TERM")
    await process.when_ended()
    assert "Server Shut Down" in log.read_text()
