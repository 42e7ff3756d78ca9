"""Messages that are taken without Autobahn are those that Autobahn would have made, and so is all that follows."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from itertools import pairwise
from typing import Any

from autobahn.twisted.websocket import WebSocketClientProtocol
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket import whole_messages
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.reasons import Ending
from dapi.websocket.settings import ConnectionSettings
from dapi.websocket.whole_messages import Frame, WholeMessages, text_frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PEER = IPv4Address("TCP", "127.0.0.1", 1)
SETTINGS = ConnectionSettings(max_message_bytes=1000, max_frames=3, max_pings=3)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, head: int = 0x80, mask: int = 0, size: int | None = None) -> bytes:
    """A frame as a server sends it; ``size`` is the number of bytes for its length, the fewest if it is None."""
    if size is None:
        size = 0 if len(payload) < 126 else 2 if len(payload) < 2**16 else 8
    length = {0: bytes([mask | min(len(payload), 125)]), 2: b"%c" % (mask | 126), 8: b"%c" % (mask | 127)}[size]
    return bytes([head | opcode]) + length + (len(payload).to_bytes(size, "big") if size else b"") + payload


class Transport(StringTransport):
    """A transport that can be aborted."""

    def abortConnection(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, _is_without_delay: bool) -> None:
        """There is no TCP."""


class Recorded(WatchedConnection):
    """A connection that writes down what happens to it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        address = WebSocketAddress(False, "127.0.0.1", 8080, "/")
        super().__init__(Clock(), address, settings, observer=self)
        self.events: list[tuple[object, ...]] = []

    def connection_made(self, connection: Any) -> None:
        """It is itself."""

    def connection_opened(self) -> None:
        self.events.append(("opened",))

    def mark_useful(self) -> None:
        """Nobody asks."""

    def connection_ended(self, ending: Ending) -> None:
        self.events.append(("ended", ending))

    def message_received(self, payload: bytes) -> None:
        self.events.append(("message", payload))
        if payload == b"end":
            self.end("it was said so")
        elif payload == b"abuse":
            self.end_abuse("it was said so")
        elif payload == b"abort":
            self._abort()

    def onPing(self, payload: bytes) -> None:
        self.events.append(("ping", payload))
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def sendFrame(self, opcode: int, payload: bytes = b"", *args: Any, **options: Any) -> None:
        self.events.append(("sent", opcode, payload))
        super().sendFrame(opcode, payload, *args, **options)


def connected(settings: ConnectionSettings = SETTINGS, offer: str = "") -> Recorded:
    """A connection whose upgrade was accepted."""
    connection = Recorded(settings)
    WatchedConnectionFactory(Clock()).of_client(lambda: connection).buildProtocol(PEER)
    transport = Transport(lenient=True)
    connection.makeConnection(transport)
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", transport.value())
    assert found is not None
    accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + offer.encode()
    connection.dataReceived(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    assert connection.events == [("opened",)]
    return connection


def events_of(pieces: list[bytes]) -> list[tuple[object, ...]]:
    """What happens to a connection that receives these pieces, and how it is left."""
    connection = connected()
    for piece in pieces:
        if connection.transport.disconnecting:
            break
        connection.dataReceived(piece)
    left = ("left", connection.state, connection.transport.disconnecting, connection.is_deaf)
    connection.connectionLost(Failure(ConnectionError()))
    return [*connection.events, left]


def events_of_autobahn(pieces: list[bytes]) -> list[tuple[object, ...]]:
    """The same, with Autobahn's processing alone."""
    ours = WholeMessages.processData
    WholeMessages.processData = WebSocketClientProtocol.processData  # type: ignore[method-assign]
    try:
        return events_of(pieces)
    finally:
        WholeMessages.processData = ours  # type: ignore[method-assign]


PAYLOADS = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([b"end", b"abuse", b"abort", "ä€😀".encode(), b"\xff", "€".encode()[:2]]),
    st.sampled_from([0, 1, 124, 125, 126, 127, 199, 200, 201, 255, 256, 999, 1000, 1001, 1100]).map(
        lambda size: b"x" * size
    ),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame: half of them whole text messages, the others anything."""
    payload = draw(PAYLOADS)
    if draw(st.booleans()):
        return frame(payload)
    opcode = draw(st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11]))
    if opcode == CLOSE:
        payload = struct.pack("!H", draw(st.sampled_from([1000, 1001, 1008, 999]))) + payload[:100]
    return frame(
        payload if opcode < CLOSE else payload[:125],
        opcode,
        head=draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0, 0xC0])),
        mask=draw(st.sampled_from([0, 0, 0, 0x80])),
        size=draw(st.sampled_from([None, None, None, None, 2, 8])),
    )


class SameAsAutobahnTests(SynchronousTestCase):
    def setUp(self) -> None:
        # So that some frames are held, and others not.
        self.patch(whole_messages, "MAX_HELD_BYTES", 200)

    def agree(self, *pieces: bytes) -> list[tuple[object, ...]]:
        events = events_of(list(pieces))
        self.assertEqual(events, events_of_autobahn(list(pieces)))
        return events

    @given(st.lists(frames(), max_size=6), st.lists(st.integers(0, 3000), max_size=4))
    def test_any_frames_in_any_pieces(self, drawn: list[bytes], cuts: list[int]) -> None:
        data = b"".join(drawn)
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        self.agree(*(data[begin:end] for begin, end in pairwise(places)))

    @given(st.binary(max_size=40))
    def test_any_bytes(self, data: bytes) -> None:
        self.agree(data)
        self.agree(frame(b"good") + data)

    def test_each_length_byte_by_byte(self) -> None:
        for size in (0, 1, 125, 126, 196, 197, 300, 1000):
            data = frame(b"a" * size) + frame(b"next")
            events = self.agree(*(data[at : at + 1] for at in range(len(data))))
            self.assertEqual(events[1:3], [("message", b"a" * size), ("message", b"next")])

    def test_all_between_whole_messages(self) -> None:
        others = {
            "ping": frame(b"p", PING),
            "pong": frame(b"p", PONG),
            "binary": frame(b"b", BINARY),
            "fragments": frame(b"f", head=0) + frame(b"g", PING) + frame(b"h", 0),
            "close": frame(struct.pack("!H", 1008) + b"why", CLOSE),
            "masked": frame(b"\0\0\0\0", mask=0x80),
            "compressed": frame(b"c", head=0xC0),
            "too large": frame(b"l" * 1001),
            "longer length": frame(b"s", size=2),
            "longest length": frame(b"s" * 300, size=8),
            "no UTF-8": frame(b"\xff"),
            "end": frame(b"end"),
            "abuse": frame(b"abuse"),
            "abort": frame(b"abort"),
        }
        for name, other in others.items():
            data = frame(b"before") + other + frame(b"after") + frame(b"last")
            for cut in range(len(data)):
                events = self.agree(data[:cut], data[cut:])
                self.assertIn(("message", b"before"), events, name)

    def test_plain_and_compressed_messages_of_one_connection(self) -> None:
        settings = ConnectionSettings(compression=True)
        connection = connected(settings, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        deflate = zlib.compressobj(wbits=-15)
        for payload in (b"one" * 9, b"two" * 9):
            packed = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            connection.dataReceived(frame(b"plain") + frame(packed, head=0xC0) + frame(b"plain"))
            plain = ("message", b"plain")
            self.assertEqual(connection.events[-3:], [plain, ("message", payload), plain])


class TakenTests(SynchronousTestCase):
    """What a node sends does not go through Autobahn: else all of this would be for nothing."""

    def setUp(self) -> None:
        self.connection = connected(ConnectionSettings())
        self.frames_by_autobahn = 0

        begin = self.connection.onFrameBegin

        def count() -> None:
            self.frames_by_autobahn += 1
            begin()

        self.patch(self.connection, "onFrameBegin", count)

    def test_messages_in_one_read_and_over_several(self) -> None:
        payloads = [b"a" * size for size in (0, 20, 125, 126, 30_000, 65_000)]
        data = b"".join(map(frame, payloads))
        for at in range(0, len(data), 2**16):
            self.connection.dataReceived(data[at : at + 2**16])
        self.assertEqual(self.connection.events[1:], [("message", payload) for payload in payloads])
        self.assertEqual(self.frames_by_autobahn, 0)

    def test_what_is_half_received_is_told(self) -> None:
        data = frame(b"a" * 300)
        self.connection.dataReceived(data[:200])
        self.assertEqual(self.connection.data, data[:200])
        self.connection.dataReceived(data[200:])
        self.assertEqual((self.connection.data, self.frames_by_autobahn), (b"", 0))

    def test_larger_one_is_not_held(self) -> None:
        self.connection.dataReceived(frame(b"a" * 70_000)[:1000])
        self.assertEqual(self.frames_by_autobahn, 1)


class TextFrameTests(SynchronousTestCase):
    def test_where_the_payload_is(self) -> None:
        for size, begin in ((0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)):
            self.assertEqual(text_frame(b"??" + frame(b"x" * size), 2), Frame(2 + begin, 2 + begin + size))
        self.assertEqual(text_frame(b"\x81\x7f" + struct.pack("!Q", 2**62), 0), Frame(10, 10 + 2**62))

    def test_what_is_no_whole_text_message(self) -> None:
        for data in (
            b"",
            b"\x81",
            b"\x81\x7e\x01",
            b"\x81\x7f" + bytes(7),
            b"\x82\x00",
            b"\x01\x00",
            b"\xc1\x00",
            b"\x81\x80",
        ):
            self.assertIsNone(text_frame(data, 0), data)
        for data in (
            frame(b"x", size=2),
            frame(b"x" * 125, size=2),
            frame(b"x" * 65_535, size=8),
            frame(b"x", mask=0x80),
        ):
            self.assertIsNone(text_frame(data, 0))
