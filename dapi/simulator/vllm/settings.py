"""How fast a simulated vLLM works and delivers, and what it counts. Facts: docs/protocol/poc-v2.md, 'Senders'."""

from __future__ import annotations

import msgspec


class SenderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The real times, in seconds; ``scaled`` makes them shorter for tests.

    A callback has one try more than there are waits. Of the results of validations ``results_at_once`` are delivered
    side by side, and ``max_results`` wait at most.
    """

    interval_seconds: float = 5.0
    try_seconds: float = 10.0
    waits_seconds: tuple[float, ...] = (1, 2, 4, 8, 16, 30, 30, 30, 30)
    max_artifacts: int = 1_000_000
    artifacts_per_second: float = 100.0
    results_at_once: int = 10
    max_results: int = 10_000

    def scaled(self, factor: float) -> SenderSettings:
        """Return settings whose times are ``factor`` times as long."""
        return msgspec.structs.replace(
            self,
            interval_seconds=self.interval_seconds * factor,
            try_seconds=self.try_seconds * factor,
            waits_seconds=tuple(wait * factor for wait in self.waits_seconds),
        )


class SenderCounts(msgspec.Struct):
    """Artifacts, or results: ``made``, of which ``delivered`` (an answer below 400), ``dropped`` or ``forgotten``.

    The sender drops what is too much, and what it tried in vain; a stop forgets the rest. ``tries`` are POSTs.
    """

    made: int = 0
    delivered: int = 0
    dropped: int = 0
    forgotten: int = 0
    tries: int = 0

    def forget(self) -> None:
        """Count as forgotten what is neither delivered nor dropped."""
        self.forgotten = self.made - self.delivered - self.dropped
