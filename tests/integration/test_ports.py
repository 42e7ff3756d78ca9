"""The ports that tests are given are nobody else's."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.integration.ports import free_port

NUMBER = 60
PROGRAM = f"from tests.integration.ports import free_port; print(*(free_port() for _ in range({NUMBER})))"


def test_no_process_is_given_one_twice_or_one_of_another_process() -> None:
    # First: what a process is given, it has only as long as it runs.
    ports = [free_port() for _ in range(NUMBER)]
    others = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout.split()
    assert len({*ports, *map(int, others)}) == 2 * NUMBER


def test_one_that_is_taken_is_left_out() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        assert taken.getsockname()[1] not in [free_port() for _ in range(200)]
