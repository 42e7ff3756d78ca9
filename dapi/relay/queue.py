"""Which payload goes next: the oldest first, in turn over models and nodes; what waits holds nothing else up."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from typing import TypeAlias

from dapi.relay.payload import Payload

Lane: TypeAlias = tuple[str | None, int | None]
_PER_LANE = 3
_AT_ONCE = 16
_AT_ONCE_AT_THE_END = 64


class PayloadQueue:
    """Payloads that are to be sent, now or from a time of their own on.

    At most 3 of a model and node are under way, and 16 in all; at the end of a stage (``is_tail``) 64 of any.
    """

    def __init__(self) -> None:
        self._ready: dict[Lane, deque[Payload]] = {}
        self._later: list[tuple[float, int, Payload]] = []
        self._under_way: Counter[Lane] = Counter()

    @property
    def under_way(self) -> int:
        """How many payloads are being sent."""
        return self._under_way.total()

    def __len__(self) -> int:
        return len(self._later) + sum(map(len, self._ready.values()))

    def __iter__(self) -> Iterator[Payload]:
        for lane in list(self._ready.values()):
            yield from list(lane)
        yield from [payload for _, _, payload in self._later]

    def put(self, payload: Payload, *, now: float) -> None:
        """Have a payload sent, from its ``retry_at`` on."""
        if payload.retry_at > now:
            heapq.heappush(self._later, (payload.retry_at, payload.seq, payload))
        else:
            self._ready.setdefault(payload.lane, deque()).append(payload)

    def hurry(self, now: float) -> None:
        """Have all that waits for a later time sent now."""
        later, self._later = self._later, []
        for _, _, payload in sorted(later, key=lambda each: each[1]):
            payload.retry_at = 0.0
            self.put(payload, now=now)

    def take(self, now: float, *, is_tail: bool) -> Payload | None:
        """Return the next payload to be sent, or None; ``done`` has to follow."""
        while self._later and self._later[0][0] <= now:
            self.put(heapq.heappop(self._later)[2], now=now)
        if self.under_way >= (_AT_ONCE_AT_THE_END if is_tail else _AT_ONCE):
            return None
        for lane in list(self._ready):
            if self._under_way[lane] < _PER_LANE or is_tail:
                payloads = self._ready.pop(lane)
                payload = payloads.popleft()
                if payloads:
                    # To the end, so that all lanes have their turn.
                    self._ready[lane] = payloads
                self._under_way[lane] += 1
                return payload
        return None

    def done(self, payload: Payload) -> None:
        """Record that a payload is not under way any more."""
        self._under_way[payload.lane] -= 1
        if not self._under_way[payload.lane]:
            del self._under_way[payload.lane]

    def next_time(self) -> float | None:
        """Return when the next one becomes due that has a time of its own."""
        return self._later[0][0] if self._later else None

    def remove(self, payloads: set[Payload]) -> None:
        """Take payloads out."""
        self._later = [each for each in self._later if each[2] not in payloads]
        heapq.heapify(self._later)
        for lane, waiting in list(self._ready.items()):
            kept = deque(payload for payload in waiting if payload not in payloads)
            if kept:
                self._ready[lane] = kept
            else:
                del self._ready[lane]
