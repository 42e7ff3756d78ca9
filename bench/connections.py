"""The connections over which ``bench.sender`` sends batches: sockets that do not block, with frames made by hand.

Messages are put together from prepared bytes, and answers are cut apart with slices alone, so that the sender costs
little beside what is measured.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

from bench.load import Load

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_READ_BYTES = 2**18
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Connection(ABC):
    """One connection to a receiver; ``sent_at`` has the messages that wait for their answer, with their times."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        if connected.family == socket.AF_INET:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self.sent_at: dict[int, float] = {}
        self._inbox = bytearray()
        self._outbox: deque[memoryview] = deque()

    @property
    def is_behind(self) -> bool:
        """Whether the socket did not take all that was to be sent."""
        return bool(self._outbox)

    def offer(self, load: Load, numbers: Iterator[int], count: int) -> None:
        """Send so many messages."""
        pieces = []
        now = time.perf_counter()
        for _ in range(count):
            number = next(numbers)
            self.sent_at[number] = now
            pieces.append(self.frame(load, number))
        self._send(b"".join(pieces))

    def receive(self) -> list[float]:
        """Read what has come; return how many seconds each answered message waited. EOFError at the end."""
        while True:
            try:
                data = self.socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                raise EOFError("the receiver closed its connection")
            self._inbox += data
            if len(data) < _READ_BYTES:
                break
        now = time.perf_counter()
        return [now - self.sent_at.pop(number) for number in self.answered()]

    def flush(self) -> None:
        """Send on."""
        self._send(b"")

    def _send(self, data: bytes) -> None:
        self._outbox.append(memoryview(data))
        try:
            while self._outbox:
                piece = self._outbox[0]
                sent = self.socket.send(piece)
                if sent == len(piece):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = piece[sent:]
        except BlockingIOError:
            pass

    @abstractmethod
    def frame(self, load: Load, number: int) -> bytes:
        """Return a message as it goes over the connection."""

    @abstractmethod
    def answered(self) -> list[int]:
        """Take whole answers out of the inbox; return the numbers of the messages that they are for."""


class WebSocketConnection(Connection):
    """A node's side of a WebSocket (RFC 6455), after ``accept`` has answered the upgrade."""

    @classmethod
    def accept(cls, listening: socket.socket) -> WebSocketConnection:
        """Wait for a client, and upgrade its connection; TimeoutError when none comes in time."""
        connected, _ = listening.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            piece = connected.recv(4096)
            if not piece:
                raise EOFError("the receiver closed its connection before it asked for a WebSocket")
            request += piece
        connected.sendall(upgrade_answer(request))
        return cls(connected)

    def frame(self, load: Load, number: int) -> bytes:
        """Return the message in one frame."""
        before, between, after = load.envelope
        digits = load.digits(number)
        size = len(before) + len(between) + len(after) + 2 * len(digits)
        return b"".join((head(size), before, digits, between, digits, after))

    def answered(self) -> list[int]:
        """Take whole frames: acks count, pings are answered."""
        inbox, place, numbers = self._inbox, 0, []
        while len(inbox) >= place + 6:
            size, begins = inbox[place + 1] & 0x7F, place + 6
            if size == 126:
                size, begins = int.from_bytes(inbox[place + 2 : place + 4], "big"), place + 8
            if len(inbox) < begins + size:
                break
            payload = unmasked(inbox[begins - 4 : begins], inbox[begins : begins + size])
            opcode = inbox[place] & 0x0F
            if opcode == _TEXT:
                numbers.append(Load.number(payload))
            elif opcode == _PING:
                self._send(bytes((0x80 | _PONG, size)) + payload)
            elif opcode == _CLOSE:
                raise EOFError(f"the receiver closed its WebSocket: {payload[2:].decode()}")
            place = begins + size
        del inbox[:place]
        return numbers


class CallbackConnection(Connection):
    """A node's HTTP connection, which is kept open, with one callback at a time."""

    def __init__(self, connected: socket.socket, path: str) -> None:
        super().__init__(connected)
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: bench\r\n"
            "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        ).encode()

    def frame(self, load: Load, number: int) -> bytes:
        """Return the request."""
        before, after = load.bare
        digits = load.digits(number)
        size = len(before) + len(digits) + len(after)
        return b"".join((self._head % size, before, digits, after))

    def answered(self) -> list[int]:
        """Take a whole answer; RuntimeError when it is no 200."""
        ends = self._inbox.find(b"\r\n\r\n")
        if ends < 0:
            return []
        status, *headers = bytes(self._inbox[:ends]).split(b"\r\n")
        if status.split(b" ")[1] != b"200":
            raise RuntimeError(f"the receiver refused a callback: {bytes(self._inbox[:1000]).decode()}")
        sizes = [int(line.split(b":")[1]) for line in headers if line.lower().startswith(b"content-length:")]
        whole = ends + 4 + sum(sizes)
        if len(self._inbox) < whole:
            return []
        del self._inbox[:whole]
        return list(self.sent_at)


def upgrade_answer(request: bytes, extensions: bytes = b"") -> bytes:
    """Return the answer that accepts a client's upgrade, and these extensions of its offer.

    ConnectionError when it is none: dapi also asks its nodes what they do.
    """
    headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    key = next((value for name, value in headers.items() if name.lower() == b"sec-websocket-key"), None)
    if key is None:
        raise ConnectionError("no upgrade")
    accepted = b"Sec-WebSocket-Extensions: " + extensions + b"\r\n" if extensions else b""
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + accepted + b"\r\n"
    )


def head(size: int) -> bytes:
    """Return the head of a server's text frame with so many bytes."""
    if size < 126:
        return struct.pack("!BB", 0x81, size)
    return struct.pack("!BBH", 0x81, 126, size) if size < 65536 else struct.pack("!BBQ", 0x81, 127, size)


def unmasked(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """Return what a client's frame says."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
