"""What a test of the WebSocket runs, ended after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

if TYPE_CHECKING:
    from tests.integration.websocket.servers import Running


@pytest.fixture
def running() -> Iterator[Running]:
    """Everything that a test starts, stopped after it."""
    # Not at the top, which is read before pytest-twisted installs the reactor that was asked for.
    from tests.integration.websocket.servers import Running

    everything = Running()
    yield everything
    pytest_twisted.blockon(everything.stop())
