"""The reactor's thread is shared among the callers of a site: who took too much waits, and is answered later."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.channel import ChannelState
from dapi.http.site import JsonSite
from dapi.http.streams import Streams
from dapi.timing.fair_share import PAUSE_SECONDS, FairShare
from tests.unit.http.connections import Echo, Transport

HEAD = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
ADDRESS = IPv4Address("TCP", "10.0.0.9", 40000)


class ShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.share = FairShare(self.clock, lambda: 0.0)
        self.site = JsonSite(
            self.clock, Echo(), admit=lambda path, _: 7 if path == b"/node" else None, share=self.share
        )
        self.node = self.share.of_node(7)

    def others_work(self, seconds: float) -> None:
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            for other in (1, 2, 3):
                self.share.of_node(other).charge(1e-4)
            self.clock.advance(0.125)

    def begin(self, path: bytes = b"node", address: IPv4Address = ADDRESS) -> Transport:
        transport = Transport(self.site, address)
        transport.send(HEAD % path)
        return transport

    def test_a_body_that_comes_in_a_pause_is_answered_after_it(self) -> None:
        transport = self.begin()
        self.others_work(0.5)
        self.node.charge(1.0)
        self.assertEqual(transport.producerState, "paused")
        # What the reactor had read already.
        transport.send(b"abc")
        self.assertEqual(transport.answers(), [])
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual([code for code, *_ in transport.answers()], [200])
        self.assertEqual(transport.producerState, "producing")

    def test_all_connections_of_a_node_pause_and_no_others(self) -> None:
        first, second, stranger = self.begin(), self.begin(), self.begin(b"other")
        self.others_work(0.5)
        self.node.charge(1.0)
        states = [transport.producerState for transport in (first, second, stranger)]
        self.assertEqual(states, ["paused", "paused", "producing"])

    def test_one_after_the_other_goes_on(self) -> None:
        """A node that has many requests at once has them read one by one: each may take too long."""
        transports = [self.begin(), self.begin()]
        self.others_work(0.5)
        self.node.charge(0.03)
        for transport in transports:
            transport.send(b"abc")
        # The first one takes a second.
        self.patch(self.share, "cpu_seconds", iter((0.0, 1.0, 2.0, 2.0, 2.0, 2.0)).__next__)
        while not transports[0].answers():
            self.others_work(0.125)
        self.assertEqual(transports[1].answers(), [])
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual([code for code, *_ in transports[1].answers()], [200])

    def test_a_stranger_that_took_too_much_is_paused_by_address(self) -> None:
        transport = self.begin(b"other")
        near = self.begin(b"other", IPv4Address("TCP", "10.0.0.10", 1))
        self.others_work(0.5)
        self.share.of_stranger("10.0.0.9").charge(1.0)
        self.assertEqual((transport.producerState, near.producerState), ("paused", "producing"))

    def test_the_deadline_goes_on_in_a_pause(self) -> None:
        transport = self.begin()
        self.others_work(25)
        self.node.charge(1.0)
        transport.send(b"abc")
        self.others_work(6)
        self.assertEqual([code for code, *_ in transport.answers()], [503])
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual(len(transport.answers()), 1)

    def test_a_whole_request_over_a_new_connection_waits_too(self) -> None:
        self.begin()
        self.others_work(0.5)
        self.node.charge(1.0)
        transport = Transport(self.site, ADDRESS)
        transport.send(HEAD % b"node" + b"abc")
        self.assertIs(transport.protocol.state, ChannelState.ANSWERING)
        self.assertEqual((transport.answers(), transport.producerState), ([], "paused"))
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual([code for code, *_ in transport.answers()], [200])

    def test_a_connection_that_ends_in_a_pause_leaves_nothing(self) -> None:
        transport = self.begin()
        self.others_work(0.5)
        self.node.charge(1.0)
        transport.send(b"ab")
        transport.lose()
        self.assertFalse(self.node.has_members)
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual(transport.answers(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stream_is_no_matter_of_shares(self) -> None:
        body = StreamedBody()
        self.site.streams = cast(Streams, body)
        transport = self.begin(b"streamed")
        self.others_work(0.5)
        self.share.of_stranger("10.0.0.9").charge(1.0)
        self.assertEqual(transport.producerState, "producing")
        transport.send(b"ab")
        self.assertEqual(body.received, b"ab")


class StreamedBody:
    """Takes every body, and is the body."""

    in_memory = False
    max_body_bytes = 100

    def __init__(self) -> None:
        self.received = b""

    def takes(self, target: bytes) -> bool:
        return target == b"/streamed"

    def check_room(self, length: int, address: str) -> None: ...

    def open_body(self, target: bytes, length: int, address: str, **_: Any) -> StreamedBody:
        return self

    def write(self, data: bytes) -> None:
        self.received += data

    def lose(self, body: Any) -> None: ...

    async def take(self, *_: Any) -> None: ...
