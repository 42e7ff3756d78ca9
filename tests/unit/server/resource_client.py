"""An HTTP client of a resource, over an in-memory connection."""

from __future__ import annotations

from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse
from twisted.web.resource import IResource


class ResourceClient:
    """Asks a resource; ``answered`` gives the answer, once it is there."""

    def __init__(self, test: SynchronousTestCase, resource: IResource) -> None:
        self._test = test
        self._treq: Any = StubTreq(resource)

    def ask(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], **options: Any
    ) -> Deferred[IResponse]:
        asked: Deferred[IResponse] = self._treq.request(method, url, data=body, headers=headers, **options)
        return asked

    def flush(self) -> None:
        """Have everything that is written arrive."""
        self._treq.flush()

    def answered(self, asked: Deferred[IResponse]) -> tuple[IResponse, bytes]:
        self.flush()
        response = self._test.successResultOf(asked)
        body: bytes = self._test.successResultOf(self._treq.content(response))
        return response, body
