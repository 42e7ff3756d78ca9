"""A short frame of ours is what another implementation makes of the same message."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from dapi.websocket.frames import MAX_SHORT_BYTES, PING, PONG, TEXT, Masks, short_frame


class ShortFrameTests(SynchronousTestCase):
    def test_another_implementation_reads_every_length(self) -> None:
        drawn = random.Random(1)
        reader = ServerProtocol(state=OPEN)
        sent = []
        for size in range(MAX_SHORT_BYTES + 1):
            payload = drawn.randbytes(size).hex().encode()[:size]
            sent.append(payload)
            reader.receive_data(short_frame(TEXT, payload, drawn.randbytes(4)))
        frames = [event for event in reader.events_received() if isinstance(event, Frame)]
        read = [(frame.opcode, frame.fin, bytes(frame.data)) for frame in frames]
        self.assertEqual(read, [(Opcode.TEXT, True, payload) for payload in sent])
        self.assertEqual(reader.state, OPEN)

    def test_pings_and_pongs(self) -> None:
        reader = ServerProtocol(state=OPEN)
        for kind in (PING, PONG):
            for payload in (b"", b"x", bytes(MAX_SHORT_BYTES)):
                reader.receive_data(short_frame(kind, payload, b"\1\2\3\4"))
        frames = [event for event in reader.events_received() if isinstance(event, Frame)]
        read = [(frame.opcode, frame.fin, len(frame.data)) for frame in frames]
        expected = [(kind, True, size) for kind in (Opcode.PING, Opcode.PONG) for size in (0, 1, MAX_SHORT_BYTES)]
        self.assertEqual(read, expected)

    def test_the_mask_hides_the_message(self) -> None:
        frame = short_frame(TEXT, b"hello", bytes([1, 2, 3, 4]))
        self.assertEqual(frame[:6], b"\x81\x85\x01\x02\x03\x04")
        self.assertNotIn(b"hello", frame)
        self.assertEqual(short_frame(TEXT, b"hello", bytes(4))[6:], b"hello")


class MasksTests(SynchronousTestCase):
    def test_each_is_drawn_once_and_in_order(self) -> None:
        drawn: list[bytes] = []

        def draw(size: int) -> bytes:
            drawn.append(random.Random(len(drawn)).randbytes(size))
            return drawn[-1]

        masks = Masks(draw)
        taken = [masks.next() for _ in range(250)]
        self.assertEqual({len(mask) for mask in taken}, {4})
        self.assertEqual(b"".join(taken), b"".join(drawn)[:1000])
        self.assertEqual(len(drawn), 3)

    def test_by_default_they_are_the_systems(self) -> None:
        one, other = Masks(), Masks()
        self.assertEqual(len({masks.next() for masks in (one, other) for _ in range(200)}), 400)
