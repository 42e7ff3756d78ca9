"""The outbox and whole processes: one that is killed loses nothing it acknowledged, two cannot share a database."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

_PATIENCE_SECONDS = 180


@contextlib.contextmanager
def writer(path: Path, first: int = 0) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A writer on the database at ``path``, with its output; killed at the end at the latest."""
    arguments = [sys.executable, "-m", "tests.integration.outbox.writer", str(path), str(first)]
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root)
    bound = threading.Timer(_PATIENCE_SECONDS, process.kill)
    bound.start()
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout
        finally:
            bound.cancel()
            bound.join()
            process.kill()


def test_kill_loses_no_acknowledged_batch_and_doubles_none(tmp_path: Path) -> None:
    path = tmp_path / "dapi.db"
    acknowledged: list[str] = []
    for turn, how_many in enumerate((500, 3000, 1500)):
        # What the killed one may have stored without saying so comes again.
        first = int(acknowledged[-1]) if acknowledged else 0
        with writer(path, first) as (process, output):
            assert output.readline() == "ready\n", turn
            acknowledged += [line.strip() for line in itertools.islice(output, how_many)]
            process.kill()
            acknowledged += [line.strip() for line in output if line.endswith("\n")]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    kept = dict(connection.execute("SELECT batch_id, message FROM unfinished"))
    ((rows,),) = connection.execute("SELECT count(*) FROM unfinished")
    connection.close()
    assert len(acknowledged) >= 5000
    assert set(acknowledged) <= kept.keys()
    assert rows == len(kept)
    assert all(message == batch_id.encode() + bytes(int(batch_id) % 5000) for batch_id, message in kept.items())


def test_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "dapi.db"
    with writer(path) as (first, output):
        assert output.readline() == "ready\n"
        with writer(path) as (second, output):
            answer = output.readline()
            assert answer.startswith("refused: ")
            assert "in use by another dapi: stop that one" in answer
            assert second.wait(_PATIENCE_SECONDS) == 0
        first.kill()
        first.wait(_PATIENCE_SECONDS)
        with writer(path) as (_, output):
            assert output.readline() == "ready\n"


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_process_refuses_what_is_no_database_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dapi.db"
    path.write_bytes(content)
    with writer(path) as (_, output):
        assert output.readline().startswith("refused: ")
    assert path.read_bytes() == content
