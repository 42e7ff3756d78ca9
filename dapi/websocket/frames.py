"""The one kind of frame that dapi makes by itself: a short text message of a client (RFC 6455, section 5.2)."""

from __future__ import annotations

MAX_SHORT_BYTES = 125
"""What one byte of length can say."""

_FINAL_TEXT = 0x81
_MASKED = 0x80


def short_text_frame(payload: bytes, mask: bytes) -> bytes:
    """Return a whole text message of at most 125 bytes as one frame, masked with these 4 bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return bytes((_FINAL_TEXT, _MASKED | size)) + mask + masked.to_bytes(size, "big")
