"""What a test of the WebSocket runs, ended after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted

from tests.integration.websocket.servers import Running


@pytest.fixture
def running() -> Iterator[Running]:
    """Everything that a test starts, stopped after it."""
    everything = Running()
    yield everything
    pytest_twisted.blockon(everything.stop())
