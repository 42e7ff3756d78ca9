"""Services that a test starts, which are stopped at its end, and what they log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dapi.config import Config
from dapi.service import DapiService, make_service
from tests.integration.service.services import Start, when_loaded
from tests.logs import Log, captured_log


@pytest_twisted.async_yield_fixture
async def start() -> AsyncIterator[Start]:
    """Start services, which are stopped at the end."""
    services: list[DapiService] = []

    async def begin(settings: Config, **more: Any) -> DapiService:
        service = make_service(settings, **more)
        services.append(service)
        service.startService()
        await when_loaded(service)
        return service

    yield lambda *arguments, **more: Deferred.fromCoroutine(begin(*arguments, **more))
    for service in services:
        await service.stopService()


@pytest.fixture
def log() -> Iterator[Log]:
    """What is logged from the test's begin on."""
    with captured_log() as captured:
        yield captured
