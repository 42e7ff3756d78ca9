"""A head that is read at once: the same comes of it as when twisted.web reads it line by line."""

from __future__ import annotations

import re
from itertools import pairwise, product
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, composite, integers, lists, permutations, sampled_from
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from dapi.http import channel as channel_module
from dapi.http.answers import HttpError, body_of, json_answer
from dapi.http.plain_head import PlainHead, plain_head
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.unit.http.connections import Echo, Transport

HEAD = (
    b"POST /v1/generated?a=b HTTP/1.1\r\nHost: a:1\r\nUser-Agent: python-requests/2.32.3\r\nAccept: */*\r\n"
    b"connection:  Keep-Alive \r\nCONTENT-LENGTH: 3\r\n\r\n"
)
LINES = (
    b"POST / HTTP/1.1",
    b"POST /v1/%41?a=b&a=c&d HTTP/1.1",
    b"POST /refused HTTP/1.1",
    b"POST /\xb0 HTTP/1.1",
    b"POST /%ff HTTP/1.1",
    b"POST / HTTP/1.0",
    b"POST / HTTP/1.2",
    b"POST  / HTTP/1.1",
    b"PUT / HTTP/1.1",
    b"GET / HTTP/1.1",
    b"post / HTTP/1.1",
    b"",
)
FIELDS = (
    b"Host: a",
    b"HOST:b ",
    b"Content-Length: 0",
    b"content-length:3",
    b"Content-Length: 03",
    b"Content-Length: +3",
    b"Content-Length: 12",
    b"Content-Length: 21",
    b"Content-Length: " + b"9" * 12,
    b"Content-Length: " + b"9" * 30,
    b"Content-Length: ",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: keep-alive, upgrade",
    b"Connection: Close Keep-Alive",
    b"Expect: 100-continue",
    b"Cookie: a=b",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Upgrade: websocket",
    b"X-\xe9: 1",
    b"X-A: \xe9",
    b"X-A: a\x00b",
    b"X-A: a\rb",
    b"X-A: a\tb",
    b"X-A : 1",
    b" folded",
    b": 1",
    b"none",
    b"X-Long: " + b"x" * 9000,
)
PLAIN_LINES, PLAIN_FIELDS = LINES[:3], (b"X-A: 1", b"content-type: application/json", b"Connection: keep-alive")


class Recording(Resource):
    """Notes what it is asked, and answers at once."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def render(self, request: Request) -> bytes:
        headers = sorted((name, list(values)) for name, values in request.requestHeaders.getAllRawHeaders())
        one_by_one = [request.getHeader(name) for name in (b"Host", b"content-length", b"x-a", b"nothing")]
        body = body_of(request)
        self.asked.append((request.method, request.uri, request.path, request.args, headers, one_by_one, body))
        return json_answer(request, len(body))


@composite
def requests(draw: Any) -> bytes:
    """One request: a plain one, with nothing or little that makes it another."""
    body: bytes = draw(binary(max_size=25))
    fields = draw(lists(sampled_from(PLAIN_FIELDS), max_size=3, unique=True))
    fields += draw(lists(sampled_from(FIELDS), max_size=2))
    if draw(integers(0, 7)):
        fields.append(b"Content-Length: %d" % len(body))
    line = draw(sampled_from(LINES if not draw(integers(0, 4)) else PLAIN_LINES))
    end: bytes = b"\r\n" if draw(integers(0, 15)) else b"\n"
    return end.join((line, *draw(permutations(fields)), b"", body))


def outcome(pieces: list[bytes]) -> tuple[Any, ...]:
    """Return what comes of these bytes: what was asked, what was answered, and how the connection is."""
    resource = Recording()

    def admit(path: bytes, _address: str) -> None:
        if path == b"/refused":
            raise HttpError(403, "not you")

    site = JsonSite(Clock(), resource, HttpSettings(max_body_bytes=20), admit=admit)
    transport = Transport(site)
    for piece in pieces:
        transport.send(piece)
    channel = transport.protocol
    answered = re.sub(rb"\r\nDate: [^\r]*", b"", transport.value())
    state = channel.state, transport.disconnecting, transport.aborted, site.buffered_bytes, site.counts
    transport.lose()
    return resource.asked, answered, state


class PlainHeadTests(SynchronousTestCase):
    def test_a_head_as_nodes_send_it(self) -> None:
        headers = {
            b"host": b"a:1",
            b"user-agent": b"python-requests/2.32.3",
            b"accept": b"*/*",
            b"connection": b"Keep-Alive",
            b"content-length": b"3",
        }
        self.assertEqual(plain_head(HEAD + b"ab"), PlainHead(b"/v1/generated?a=b", headers, 3, len(HEAD)))

    def test_a_part_of_a_head(self) -> None:
        for size in range(len(HEAD)):
            self.assertIsNone(plain_head(HEAD[:size]))

    def test_what_is_left_to_twisted_web(self) -> None:
        whole = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n"
        self.assertIsNotNone(plain_head(whole + b"\r\n"))
        for field in (*FIELDS[2:12], *FIELDS[12:19], *FIELDS[20:23], *FIELDS[25:]):
            if field != b"Connection: keep-alive":
                self.assertIsNone(plain_head(whole + field + b"\r\n\r\n"), field)
        for line in LINES[5:]:
            self.assertIsNone(plain_head(line + b"\r\nContent-Length: 3\r\n\r\n"), line)
        self.assertIsNone(plain_head(whole + b"".join(b"X-%d: 1\r\n" % number for number in range(100)) + b"\r\n"))
        self.assertIsNone(plain_head(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"))

    @given(lists(requests(), min_size=1, max_size=3), lists(integers(0, 400), max_size=4))
    def test_the_same_as_line_by_line(self, sent: list[bytes], cuts: list[int]) -> None:
        data = b"".join(sent)
        places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        pieces = [data[begin:end] for begin, end in pairwise(places)]
        # Without cuts, as clients send that wait for each answer.
        self.compare(pieces if cuts else sent)

    def test_each_oddity(self) -> None:
        for line, field in product(LINES, FIELDS):
            for fields in ((field, b"Content-Length: 3"), (b"Content-Length: 3", field), (field,)):
                self.compare([b"\r\n".join((line, *fields, b"", b"abc"))])

    def test_a_request_that_comes_while_the_one_before_is_answered(self) -> None:
        request = HEAD + b"abc"
        for cut in (1, 20, len(HEAD) - 1, len(HEAD), len(HEAD) + 2, len(request)):
            resource = Echo()
            transport = Transport(JsonSite(Clock(), resource))
            transport.send(HEAD.replace(b"/v1/generated?a=b", b"/slow") + b"abc")
            transport.send(request[:cut])
            self.assertEqual(transport.answers(), [])
            [waiting] = resource.waiting
            waiting.write(json_answer(waiting, "slow"))
            waiting.finish()
            transport.send(request[cut:])
            transport.send(request)
            bodies = [body for _, _, body in transport.answers()]
            self.assertEqual(bodies, ["slow", {"length": 3}, {"length": 3}], cut)

    def compare(self, pieces: list[bytes]) -> None:
        at_once = outcome(pieces)
        self.patch(channel_module, "plain_head", lambda data: None)
        self.assertEqual(at_once, outcome(pieces), pieces)
        self.patch(channel_module, "plain_head", plain_head)

    def test_head_and_body_in_pieces(self) -> None:
        request = HEAD + b"abc"
        ((_, uri, path, args, _, _, body),), *_ = expected = outcome([request])
        self.assertEqual((uri, path, args, body), (b"/v1/generated?a=b", b"/v1/generated", {b"a": [b"b"]}, b"abc"))
        for cut in range(1, len(request)):
            self.assertEqual(outcome([request[:cut], request[cut:]]), expected)
