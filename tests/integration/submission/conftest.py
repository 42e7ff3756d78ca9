"""What a test of the way to the chain runs, ended after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from tests.integration.submission.chain_and_dapi import Maker


@pytest_twisted.async_yield_fixture
async def maker(tmp_path: Path) -> AsyncIterator[Maker]:
    """Makes chains and dapis, which are stopped after the test."""
    made = Maker(tmp_path)
    yield made
    await made.end()
