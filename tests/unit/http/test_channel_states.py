"""The states of a connection: every way that is drawn is walked, and the others are refused."""

from __future__ import annotations

from itertools import pairwise, product

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http import channel as channel_module
from dapi.http.answers import json_answer
from dapi.http.channel import TRANSITIONS, ChannelState, JsonChannel
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.unit.http.connections import Echo, Transport

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


class ChannelStateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resource = Echo()
        self.settings = HttpSettings(
            max_body_bytes=100, max_buffered_bytes=10, head_seconds=25, idle_seconds=20, deadline_seconds=30
        )
        self.site = JsonSite(self.clock, self.resource, self.settings)
        self.connect()

    def connect(self) -> None:
        self.transport = Transport(self.site)
        channel = self.channel = self.transport.protocol
        walked: list[tuple[ChannelState, ChannelState]] = []
        self.walked = walked

        def turn(state: ChannelState) -> None:
            walked.append((channel.state, state))
            JsonChannel.turn(channel, state)

        self.patch(channel, "turn", turn)

    def answer(self) -> None:
        request = self.resource.waiting.pop()
        request.write(json_answer(request, 1))
        request.finish()

    def walk(self, *expected: ChannelState) -> None:
        """Check the states since the last call, the one before them included."""
        self.assertEqual(self.walked, list(pairwise(expected)))
        self.assertIs(self.channel.state, expected[-1])
        self.seen |= set(self.walked)
        self.walked.clear()

    def bring_to(self, state: ChannelState) -> None:
        """Make a new connection that is in this state."""
        self.transport.lose()
        self.connect()
        match state:
            case ChannelState.RECEIVING:
                self.transport.send(b"GET")
            case ChannelState.ANSWERING:
                self.transport.send(SLOW)
            case ChannelState.ENDLESS:
                self.transport.send(SLOW)
                self.channel.answer_without_end()
            case ChannelState.REFUSED:
                self.transport.send(b"malformed\r\n\r\n")
            case ChannelState.CLOSING:
                self.clock.advance(self.settings.head_seconds)
            case ChannelState.LOST:
                self.transport.lose()
        self.assertIs(self.channel.state, state)
        self.walked.clear()

    def test_every_way_that_is_drawn(self) -> None:
        self.seen: set[tuple[ChannelState, ChannelState]] = set()
        idle, receiving, answering = ChannelState.IDLE, ChannelState.RECEIVING, ChannelState.ANSWERING
        refused, closing, lost = ChannelState.REFUSED, ChannelState.CLOSING, ChannelState.LOST
        endless = ChannelState.ENDLESS
        self.transport.send(HEAD)
        self.walk(idle, receiving)
        self.transport.send(b"abc")
        self.walk(receiving, answering, idle)
        self.transport.send(SLOW + SLOW)
        self.walk(idle, receiving, answering)
        self.answer()
        self.walk(answering, idle, receiving, answering)
        self.answer()
        self.walk(answering, idle)
        self.transport.send(SLOW)
        self.channel.answer_without_end()
        self.answer()
        self.walk(idle, receiving, answering, endless, idle)
        self.clock.advance(self.settings.idle_seconds)
        self.walk(idle, closing)
        self.clock.advance(self.settings.linger_seconds)
        self.walk(closing, lost)
        for state in (idle, receiving, answering, endless, refused):
            self.bring_to(state)
            self.transport.lose()
            self.walk(state, lost)
        self.bring_to(receiving)
        self.clock.advance(self.settings.idle_seconds)
        self.walk(receiving, closing)
        self.bring_to(receiving)
        self.transport.send(b"ting\r\n\r\n")
        self.walk(receiving, refused)
        self.transport.lose()
        drawn = {(state, following) for state, all_following in TRANSITIONS.items() for following in all_following}
        self.assertEqual(self.seen, drawn)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.site.connections, self.site.buffered_bytes), (0, 0))

    def test_what_leads_to_a_refusal(self) -> None:
        for sent in (
            b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\n" + bytes(11),
            b"x" * 20_000,
        ):
            self.connect()
            self.transport.send(sent)
            self.assertIs(self.channel.state, ChannelState.REFUSED)
            self.transport.lose()
        self.bring_to(ChannelState.RECEIVING)
        for _ in range(3):
            self.clock.advance(10)
            self.transport.send(b"x")
        self.assertIs(self.channel.state, ChannelState.REFUSED)

    def test_a_connection_closes_after_its_last_answer(self) -> None:
        self.transport.send(SLOW.replace(b"Host", b"Connection: close\r\nHost"))
        self.answer()
        self.assertIs(self.channel.state, ChannelState.CLOSING)
        self.bring_to(ChannelState.ANSWERING)
        self.clock.advance(self.settings.deadline_seconds)
        self.assertIs(self.channel.state, ChannelState.CLOSING)
        self.resource.waiting.clear()
        self.bring_to(ChannelState.ANSWERING)
        self.site.close_connections()
        self.assertIs(self.channel.state, ChannelState.ANSWERING)
        self.answer()
        self.assertIs(self.channel.state, ChannelState.CLOSING)

    def test_an_answer_without_end_has_no_deadline_and_ends_with_the_server(self) -> None:
        self.bring_to(ChannelState.ENDLESS)
        self.clock.advance(10 * self.settings.deadline_seconds)
        self.assertIs(self.channel.state, ChannelState.ENDLESS)
        closed = self.site.close_connections()
        self.successResultOf(closed)
        self.assertTrue(self.transport.aborted)
        self.resource.waiting.clear()

    def test_the_other_ways_are_refused(self) -> None:
        for state, following in product(ChannelState, ChannelState):
            if following not in TRANSITIONS[state]:
                self.bring_to(state)
                self.assertRaisesRegex(
                    RuntimeError, f"{state.name} does not lead to {following.name}", self.channel.turn, following
                )
                self.assertIs(self.channel.state, state)
                self.resource.waiting.clear()

    def test_what_comes_when_it_is_over_changes_nothing(self) -> None:
        for state in (ChannelState.REFUSED, ChannelState.CLOSING, ChannelState.LOST):
            self.bring_to(state)
            sent = self.transport.value()
            self.transport.send(SLOW)
            self.channel.lineReceived(b"GET / HTTP/1.1")
            self.channel.rawDataReceived(b"x")
            self.channel.allContentReceived()
            self.channel.refuse(400, "again")
            self.assertFalse(self.channel.make_room(1))
            self.assertEqual((self.channel.state, self.transport.value()), (state, sent))
            self.assertEqual(self.resource.waiting, [])

    def test_every_state_is_drawn(self) -> None:
        for state in ChannelState:
            self.assertIn(state.name if state is not ChannelState.LOST else "lost", str(channel_module.__doc__))
