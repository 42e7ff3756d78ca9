"""Services that a test starts, which are stopped at its end, and what they log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dapi.config import Config
from dapi.service import DapiService, make_service
from tests.logs import Log, captured_log

if TYPE_CHECKING:
    from tests.integration.service.services import Start


@pytest_twisted.async_yield_fixture
async def start() -> AsyncIterator[Start]:
    """Start services, which are stopped at the end."""
    # Not at the top, which is read before pytest-twisted installs the reactor that was asked for.
    from tests.integration.service.services import when_loaded

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
