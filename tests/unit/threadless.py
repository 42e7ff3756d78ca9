"""A reactor whose threads are none: what is deferred to one is done before the Deferred is returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class ThreadlessReactor(Clock):
    """A clock that deferToThreadPool can be given; ``deferred`` are the functions that went to a thread.

    With ``holds_threads`` they wait for ``run_threads``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deferred: list[str] = []
        self.holds_threads = False
        self._held: list[Callable[[], None]] = []

    def getThreadPool(self) -> ThreadlessReactor:
        return self

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        self.deferred.append(function.__name__)

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception:  # noqa: BLE001 - as a thread pool does
                on_result(False, Failure())
            else:
                on_result(True, result)

        if self.holds_threads:
            self._held.append(run)
        else:
            run()

    def run_threads(self) -> None:
        """Do what waits for a thread."""
        held, self._held = self._held, []
        for run in held:
            run()
