"""How many batches came in each minute, by their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

MINUTES = 360

ByWay: TypeAlias = tuple[int, int]
"""Over the WebSocket, and by HTTP."""


class Minutes:
    """The last 360 minutes that are over; a minute in which dapi did not run is no minute here.

    ``counts`` returns what each node has delivered since dapi knows it, by its id. A node's begin at 0 again when it is
    replaced.
    """

    def __init__(self, counts: Callable[[], Mapping[str, ByWay]]) -> None:
        self._ask = counts
        self._minute: int | None = None
        self._counts: dict[str, ByWay] = {}
        self._over: deque[ByWay] = deque(maxlen=MINUTES)

    def update(self, unix_seconds: float) -> None:
        """Count what has come since the last call, when that was in an earlier minute."""
        minute = int(unix_seconds // 60)
        if minute == self._minute:
            return
        counts = self._ask()
        if self._minute is not None:
            self._over.append(self._come(counts))
        self._minute = minute
        self._counts = dict(counts)

    def data(self) -> dict[str, object]:
        """Return the counts of each minute, oldest first, and when the last of them was over (unix seconds)."""
        return {
            "until": None if self._minute is None else 60 * self._minute,
            "websocket": [websocket for websocket, _ in self._over],
            "http": [http for _, http in self._over],
        }

    def _come(self, counts: Mapping[str, ByWay]) -> ByWay:
        websocket = http = 0
        for node_id, (by_websocket, by_http) in counts.items():
            before = self._counts.get(node_id, (0, 0))
            is_same = by_websocket >= before[0] and by_http >= before[1]
            websocket += by_websocket - before[0] if is_same else by_websocket
            http += by_http - before[1] if is_same else by_http
        return websocket, http
