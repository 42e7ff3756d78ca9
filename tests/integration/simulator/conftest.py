"""What the tests of the simulated ML node stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted

from tests.integration.simulated_node import NodeTestBed


@pytest_twisted.async_yield_fixture
async def bed() -> AsyncIterator[NodeTestBed]:
    """A simulated node that runs, its callback server, and a client of its HTTP API."""
    bed = NodeTestBed()
    yield bed
    await bed.end()
