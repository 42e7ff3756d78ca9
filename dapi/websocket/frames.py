"""The frames that dapi makes by itself: a client's short text messages, pings and pongs (RFC 6455, section 5.2)."""

from __future__ import annotations

import os
from collections.abc import Callable

MAX_SHORT_BYTES = 125
"""What one byte of length can say."""

TEXT, PING, PONG = 0x81, 0x89, 0x8A
"""What a whole message, or a control frame, of this kind begins with."""

_MASKED = 0x80
_MASK_BYTES = 4
_DRAWN_BYTES = 100 * _MASK_BYTES


def short_frame(kind: int, payload: bytes, mask: bytes) -> bytes:
    """Return a text message, ping or pong of at most 125 bytes as one frame, masked with these 4 bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return bytes((kind, _MASKED | size)) + mask + masked.to_bytes(size, "big")


class Masks:
    """Draws the mask of each frame, 4 bytes that nobody can foresee (RFC 6455, section 5.3), a hundred at a time.

    Each call of the system gives up the interpreter's lock, and beside a busy thread it is long until it is back.
    """

    __slots__ = ("_at", "_draw", "_drawn")

    def __init__(self, draw: Callable[[int], bytes] = os.urandom) -> None:
        self._draw = draw
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        """Return the next mask."""
        if self._at == len(self._drawn):
            self._drawn, self._at = self._draw(_DRAWN_BYTES), 0
        self._at += _MASK_BYTES
        return self._drawn[self._at - _MASK_BYTES : self._at]
