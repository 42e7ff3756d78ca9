"""The cases of Autobahn's test suite, played by hand against the client: their numbers are the suite's.

The suite itself is played by ``tests/integration/websocket/test_autobahn_suite.py``; this is beside it what shows how
dapi's own messages fare. Its groups: 1 framing, 2 pings and pongs, 3 reserved bits, 4 opcodes, 5 fragmentation, 6
UTF-8, 7 close handshake, 9 sizes, 10 automatic fragmentation. Left out: 6.4 (the suite does not insist on an invalid
text that fails before its end), 9 above a mebibyte, 12 and 13 (compression, which is not offered).

Frames are made here, and what the client answers is read by another library. The client's messages are JSON, so a
message that the suite has echoed is acknowledged here, or counted as a bad one.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from tests.unit.websocket.client_in_memory import ClientInMemory, message

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LIMIT = 2 * 1024 * 1024
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PROTOCOL_ERROR, INVALID_DATA = 1002, 1007


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """Make a server's frame, a wrong one too."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 2**16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def fragments(payload: bytes, *sizes: int, opcode: int = TEXT) -> list[bytes]:
    """Cut a message into frames of these sizes, and one with the rest."""
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(payload[begin : begin + size])
        begin += size
    pieces.append(payload[begin:])
    last = len(pieces) - 1
    return [frame(CONTINUATION if i else opcode, piece, fin=i == last) for i, piece in enumerate(pieces)]


def sized(size: int, name: str = "m") -> bytes:
    """A message of exactly so many bytes."""
    text = message(name)
    return text + b" " * (size - len(text))


class Outcome(NamedTuple):
    """What has to come of a case: acks, pongs with these payloads, bad messages, and the client's close code.

    The code is None where the connection goes on.
    """

    acks: int = 0
    pongs: tuple[bytes, ...] = ()
    bad: int = 0
    code: int | None = None


class RawServer(Protocol):
    """Accepts the upgrade, and keeps all bytes that come after it."""

    def __init__(self) -> None:
        self.received = b""
        self._is_open = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if self._is_open or not end:
            return
        (key,) = [line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        assert self.transport is not None
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.received, self._is_open = rest, True

    def frames(self) -> Iterator[Frame]:
        """Yield the client's frames, which have to be masked and whole."""
        reader = StreamReader()
        reader.feed_data(self.received)
        while reader.buffer:
            parsing = Frame.parse(reader.read_exact, mask=True)
            try:
                next(parsing)
            except StopIteration as end:
                yield end.value
            else:
                raise AssertionError("the client's frame is not whole")


def by_octets(writes: list[bytes]) -> list[bytes]:
    """The same bytes, one by one."""
    return [bytes([octet]) for octet in b"".join(writes)]


TEXTS = {"1.1.1": 0, "1.1.2": 125, "1.1.3": 126, "1.1.4": 127, "1.1.5": 128, "1.1.6": 65535, "1.1.7": 65536}
FAILS = Outcome(code=PROTOCOL_ERROR)
Cases = dict[str, tuple[list[bytes], Outcome]]


def framing() -> Cases:
    cases: Cases = {}
    for case, size in TEXTS.items():
        # Below what a batch takes, a message can be no batch.
        is_batch = size > len(message("m"))
        outcome = Outcome(acks=1) if is_batch else Outcome(bad=1)
        payload = sized(size) if is_batch else b"x" * size
        cases[case] = [frame(TEXT, payload)], outcome
        cases[case.replace("1.1", "1.2")] = [frame(BINARY, payload)], outcome
    whole = frame(TEXT, sized(65536))
    cases["1.1.8"] = [whole[begin : begin + 997] for begin in range(0, len(whole), 997)], Outcome(acks=1)
    return cases


def pings() -> Cases:
    long = bytes(range(125))
    ten = [frame(PING, b"payload-%d" % number) for number in range(10)]
    answers = tuple(b"payload-%d" % number for number in range(10))
    return {
        "2.1": ([frame(PING)], Outcome(pongs=(b"",))),
        "2.2": ([frame(PING, b"Hello, world!")], Outcome(pongs=(b"Hello, world!",))),
        "2.3": ([frame(PING, b"\x00\xff\xfe\xfd")], Outcome(pongs=(b"\x00\xff\xfe\xfd",))),
        "2.4": ([frame(PING, long)], Outcome(pongs=(long,))),
        "2.5": ([frame(PING, long + b"x")], FAILS),
        "2.6": (by_octets([frame(PING, long)]), Outcome(pongs=(long,))),
        "2.7": ([frame(PONG)], Outcome()),
        "2.8": ([frame(PONG, b"unsolicited")], Outcome()),
        "2.9": ([frame(PONG, b"unsolicited"), frame(PING, b"ping")], Outcome(pongs=(b"ping",))),
        "2.10": (ten, Outcome(pongs=answers)),
        "2.11": (by_octets(ten), Outcome(pongs=answers)),
    }


def reserved_bits() -> Cases:
    good = frame(TEXT, message("m"))
    return {
        "3.1": ([frame(TEXT, message("n"), reserved=4)], FAILS),
        "3.2": ([good, frame(TEXT, message("n"), reserved=2), frame(PING)], Outcome(acks=1, code=PROTOCOL_ERROR)),
        "3.3": ([good, frame(TEXT, message("n"), reserved=1)], Outcome(acks=1, code=PROTOCOL_ERROR)),
        "3.4": (by_octets([good, frame(TEXT, b"n", reserved=4)]), Outcome(acks=1, code=PROTOCOL_ERROR)),
        "3.5": ([frame(BINARY, b"\x00\xff", reserved=5)], FAILS),
        "3.6": ([frame(PING, b"p", reserved=6)], FAILS),
        "3.7": ([frame(CLOSE, reserved=7)], FAILS),
    }


def opcodes() -> Cases:
    good = frame(TEXT, message("m"))
    cases: Cases = {}
    for number, opcode in enumerate((3, 4, 5, 6, 7), start=1):
        payload = b"" if number % 2 else b"payload"
        cases[f"4.1.{number}"] = [good, frame(opcode, payload)], Outcome(acks=1, code=PROTOCOL_ERROR)
        cases[f"4.2.{number}"] = [good, frame(opcode + 8, payload)], Outcome(acks=1, code=PROTOCOL_ERROR)
    return cases


def fragmentation() -> Cases:
    text = message("m")
    two = fragments(text, 20)
    with_ping = [two[0], frame(PING, b"p"), two[1]]
    many = fragments(text, 10, 10, 10, 10)
    between = [many[0], many[1], frame(PING, b"1"), many[2], many[3], frame(PING, b"2"), many[4]]
    lone = frame(CONTINUATION, b"non-continuation payload")
    lone_open = frame(CONTINUATION, b"non-continuation payload", fin=False)
    good = frame(TEXT, text)
    taken, answered = Outcome(acks=1), Outcome(acks=1, pongs=(b"p",))
    return {
        "5.1": ([frame(PING, b"a", fin=False), frame(CONTINUATION, b"b")], FAILS),
        "5.2": ([frame(PONG, b"a", fin=False), frame(CONTINUATION, b"b")], FAILS),
        "5.3": (two, taken),
        "5.4": ([b"".join(two)], taken),
        "5.5": (by_octets(two), taken),
        "5.6": (with_ping, answered),
        "5.7": ([b"".join(with_ping)], answered),
        "5.8": (by_octets(with_ping), answered),
        "5.9": ([lone, good], FAILS),
        "5.10": ([lone + good], FAILS),
        "5.11": (by_octets([lone, good]), FAILS),
        "5.12": ([lone_open, good], FAILS),
        "5.13": ([lone_open + good], FAILS),
        "5.14": (by_octets([lone_open, good]), FAILS),
        "5.15": ([*two, lone_open, good], Outcome(acks=1, code=PROTOCOL_ERROR)),
        "5.16": ([lone_open, good, lone_open], FAILS),
        "5.17": ([lone, good, lone], FAILS),
        "5.18": ([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], FAILS),
        "5.19": (
            between,
            Outcome(
                acks=1,
                pongs=(
                    b"1",
                    b"2",
                ),
            ),
        ),
        "5.20": (
            [b"".join(between)],
            Outcome(
                acks=1,
                pongs=(
                    b"1",
                    b"2",
                ),
            ),
        ),
    }


VALID_TEXTS = {
    "6.2.1": "Hello-µ@ßöäüàá-UTF-8!!",
    "6.5.1": "κόσμε",
    "6.6": "\u0080\u0800\U00010000",
    "6.9": "\u007f\u07ff\uffff\U0010ffff",
    "6.11": "\ud7ff\ue000\ufffd\U0010ffff",
    "6.22": "\ufffe\uffff\U0001fffe\U0010ffff",
    "6.23": "\ufffd",
}
INVALID_TEXTS = {
    "6.3.1": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.7": b"\xf8\x88\x80\x80\x80",
    "6.8": b"\xfc\x84\x80\x80\x80\x80",
    "6.10": b"\xf4\x90\x80\x80",
    "6.12": b"\x80",
    "6.13": b"\xc0\x20",
    "6.14": b"\xe0\x80",
    "6.15": b"\xc0\xe0\x80\xf0\x80\x80",
    "6.16": b"\xfe\xff",
    "6.17": b"\xc0\xaf",
    "6.18": b"\xc1\xbf",
    "6.19": b"\xe0\x9f\xbf",
    "6.20": b"\xed\xa0\x80",
    "6.21": b"\xed\xa0\x80\xed\xb0\x80",
}


def utf8() -> Cases:
    taken = Outcome(acks=1)
    cases: Cases = {
        "6.1.1": ([frame(TEXT)], Outcome(bad=1)),
        "6.1.2": (fragments(b"", 0, 0), Outcome(bad=1)),
        "6.1.3": (fragments(message("m"), 0, len(message("m"))), taken),
    }
    for case, text in VALID_TEXTS.items():
        payload = message("m")[:-1] + b', "note": "' + text.encode() + b'"}'
        cases[case] = [frame(TEXT, payload)], taken
        cases[f"{case} by octets"] = fragments(payload, *[1] * (len(payload) - 1)), taken
    for case, invalid in INVALID_TEXTS.items():
        payload = message("m")[:-1] + b', "note": "' + invalid + b'"}'
        cases[case] = [frame(TEXT, payload)], Outcome(code=INVALID_DATA)
        cases[f"{case} in two"] = fragments(payload, len(payload) - 3), Outcome(code=INVALID_DATA)
    return cases


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)


def closes() -> Cases:
    normal = close_frame(1000)
    closed = Outcome(code=1000)
    cases: Cases = {
        "7.1.1": ([frame(TEXT, message("m")), normal], Outcome(acks=1, code=1000)),
        "7.1.2": ([normal, normal], closed),
        "7.1.3": ([normal, frame(PING, b"late")], closed),
        "7.1.4": ([normal, frame(TEXT, message("m"))], closed),
        # What a node still sends is looked at: a batch would be kept, without an ack.
        "7.1.5": ([frame(TEXT, b"{", fin=False), normal, frame(CONTINUATION, b"}")], Outcome(bad=1, code=1000)),
        "7.1.6": ([frame(TEXT, sized(256 * 1024)), normal, frame(PING)], Outcome(acks=1, code=1000)),
        # Without a code, the answer has none either, or 1000.
        "7.3.1": ([frame(CLOSE)], closed),
        "7.3.2": ([frame(CLOSE, b"\x03")], FAILS),
        "7.3.3": ([normal], closed),
        "7.3.4": ([close_frame(1000, b"Hello World!")], closed),
        "7.3.5": ([close_frame(1000, b"*" * 123)], closed),
        "7.3.6": ([close_frame(1000, b"*" * 124)], FAILS),
        "7.5.1": ([close_frame(1000, INVALID_TEXTS["6.3.1"])], Outcome(code=INVALID_DATA)),
    }
    for number, code in enumerate(VALID_CODES, start=1):
        # The suite takes 1000 as well as the same code.
        cases[f"7.7.{number}"] = [close_frame(code)], closed
    for number, code in enumerate(INVALID_CODES, start=1):
        cases[f"7.9.{number}"] = [close_frame(code)], FAILS
    return cases


def sizes() -> Cases:
    taken = Outcome(acks=1)
    mebibyte = sized(2**20)
    cases: Cases = {
        "9.1.1": ([frame(TEXT, sized(2**16))], taken),
        "9.1.3": ([frame(TEXT, mebibyte)], taken),
        "9.2.3": ([frame(BINARY, mebibyte)], taken),
        "10.1.1": (fragments(sized(65536), *[1300] * 50), taken),
    }
    for number, size in enumerate((2**12, 2**14, 2**16, 2**18), start=4):
        cases[f"9.3.{number}"] = fragments(mebibyte, *[size] * (2**20 // size - 1)), taken
    whole = frame(TEXT, mebibyte)
    for number, size in enumerate((2048, 65536), start=1):
        cases[f"9.5.{number}"] = [whole[begin : begin + size] for begin in range(0, len(whole), size)], taken
    return cases


class AutobahnCasesTests(SynchronousTestCase):
    def play(self, writes: list[bytes]) -> Outcome:
        """Play one case on a connection of its own; everything is stored at once."""
        world = ClientInMemory(max_message_bytes=_LIMIT)
        world.client.startService()
        link = world.accept(RawServer())
        link.flush()
        for write in writes:
            link.server_transport.write(write)
            link.flush()
            while world.recorder.pending:
                world.recorder.store()
        link.flush()
        frames = list(link.server.frames())
        codes = [Close.parse(each.data).code if each.data else 1000 for each in frames if each.opcode is Opcode.CLOSE]
        status = world.client.status()
        self.assertLessEqual(len(codes), 1)
        self.assertFalse([each for each in frames if each.opcode is Opcode.PING])
        return Outcome(
            acks=sum(each.opcode is Opcode.TEXT for each in frames),
            pongs=tuple(bytes(each.data) for each in frames if each.opcode is Opcode.PONG),
            bad=status.bad_messages,
            code=codes[0] if codes else None,
        )

    def assert_group(self, make_cases: Callable[[], Cases]) -> None:
        wrong = {}
        for case, (writes, expected) in make_cases().items():
            found = self.play(writes)
            if found != expected:
                wrong[case] = (expected, found)
        self.assertFalse(wrong)

    def test_1_framing(self) -> None:
        self.assert_group(framing)

    def test_2_pings_and_pongs(self) -> None:
        self.assert_group(pings)

    def test_3_reserved_bits(self) -> None:
        self.assert_group(reserved_bits)

    def test_4_opcodes(self) -> None:
        self.assert_group(opcodes)

    def test_5_fragmentation(self) -> None:
        self.assert_group(fragmentation)

    def test_6_utf8(self) -> None:
        self.assert_group(utf8)

    def test_7_close_handshake(self) -> None:
        self.assert_group(closes)

    def test_9_and_10_sizes(self) -> None:
        self.assert_group(sizes)
