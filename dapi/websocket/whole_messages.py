"""Takes whole text messages out of what was received, without the many calls that Autobahn makes for each.

Nearly all that a node sends are text messages of one frame each, neither masked nor compressed (RFC 6455, section 5.2).
WholeMessages takes them at once, and leaves all else to Autobahn, from the first byte of the frame on: fragments,
control frames, binary or compressed messages, everything that is refused, and messages that are too large to be held
until they are whole. So Autobahn says what is a violation, and there is one set of rules.
tests/unit/websocket/test_whole_messages.py compares the two.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Final, NamedTuple

from dapi.websocket.options import ConnectionOptions

MAX_HELD_BYTES: Final = 64 * 1024
"""A frame up to this size, its head included, is held until the whole of it has come. A read brings as much."""

_FINAL_TEXT: Final = 0x81
_TWO_BYTES, _EIGHT_BYTES = 126, 127
"""What stands in place of a length that needs more than 7 bits; the length follows in so many bytes."""


class Frame(NamedTuple):
    """Where the payload of a frame begins and ends."""

    begin: int
    end: int


def text_frame(data: bytes, at: int) -> Frame | None:
    """Find a whole text message of one unmasked frame at a place in ``data``, or as much of it as has come.

    None where something else is there, also where its length is not as short as it can be, or has not come.
    """
    if len(data) - at < 2 or data[at] != _FINAL_TEXT:
        return None
    length = data[at + 1]
    if length < _TWO_BYTES:
        return Frame(at + 2, at + 2 + length)
    # A masked frame has a larger number here.
    size = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length)
    if size is None or len(data) - at < 2 + size:
        return None
    begin = at + 2 + size
    length = int.from_bytes(data[at + 2 : begin], "big")
    is_shortest = length >= _TWO_BYTES if size == 2 else length > 0xFFFF
    return Frame(begin, begin + length) if is_shortest else None


class WholeMessages(ConnectionOptions):
    """Autobahn's client, with a shorter way for whole text messages; ``onMessage`` has to check their UTF-8.

    ``is_deaf`` says that nothing that came is to be handled any more.
    """

    is_deaf = False

    def may_handle_more(self) -> bool:
        """Return whether the next message may be handled now; if not, what has come is kept, or Autobahn's."""
        return bool(self.state == self.STATE_OPEN)

    def processData(self) -> bool:  # noqa: N802
        """Handle what has come; return whether there is more to do with what is left."""
        is_inside_frame: bool = self.current_frame is not None
        if is_inside_frame or self.inside_message:
            return bool(super().processData())
        data, at = self.data, 0
        while self.may_handle_more() and (frame := text_frame(data, at)) is not None:
            if frame.end - frame.begin > self.maxMessagePayloadSize:
                break
            if frame.end > len(data):
                if frame.end - at > MAX_HELD_BYTES:
                    break
                self.data = data[at:]
                return False
            at = frame.end
            # Whoever handles the message may drop what has come.
            self.data = b""
            self.onMessage(data[frame.begin : frame.end], False)
        if self.is_deaf:
            return False
        self.data = data[at:]
        return bool(self.data) if at else bool(super().processData())
