"""Whatever clients do, what they take is bounded, and given back when they are gone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.answers import json_answer
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.unit.http.connections import Echo, Transport

SETTINGS = HttpSettings(max_body_bytes=100, max_buffered_bytes=250, max_connections=6)
PIECES = (
    b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n",
    bytes(45),
    b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 40,
    b"A: 1\r\n" * 100,
    b"\r\n",
)
ACTS = ("connect", "send", "send", "send", "send", "answer", "lose", "wait")


class BoundsTests(SynchronousTestCase):
    @given(lists(tuples(sampled_from(ACTS), integers(0, 99)), max_size=60))
    def test_whatever_clients_do(self, acts: list[tuple[str, int]]) -> None:
        clock, resource = Clock(), Echo()
        site = JsonSite(clock, resource, SETTINGS)
        transports: list[Transport] = []
        for act, number in acts:
            transports = [transport for transport in transports if transport.is_open]
            match act:
                case "connect":
                    peer = IPv4Address("TCP", f"10.0.0.{number % 3}", 40000)
                    taken = [each for each in transports if each.getPeer().host == peer.host]
                    left = SETTINGS.max_connections - len(transports)
                    if not left or 2 * len(taken) > left:
                        self.assertIsNone(site.buildProtocol(peer))
                    else:
                        transports.append(Transport(site, peer))
                case "send" if transports:
                    transports[number % len(transports)].send(PIECES[number % len(PIECES)])
                case "answer" if resource.waiting:
                    request = resource.waiting.pop(number % len(resource.waiting))
                    if not request.finished and not request._disconnected:
                        request.write(json_answer(request, 1))
                        request.finish()
                case "lose" if transports:
                    transports[number % len(transports)].lose()
                case "wait":
                    clock.advance(number / 2)
            self.assertEqual(site.connections, sum(transport.is_open for transport in transports))
            self.assertLessEqual(site.buffered_bytes, SETTINGS.max_buffered_bytes)
            buffered = sum(transport.protocol._buffered_bytes for transport in transports if transport.is_open)
            self.assertEqual(site.buffered_bytes, buffered)
        for transport in transports:
            transport.lose()
        self.assertEqual((site.connections, site.buffered_bytes, site._peers.holders), (0, 0, 0))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_refused_body_takes_no_memory_while_its_client_stays(self) -> None:
        site = JsonSite(Clock(), Echo(), SETTINGS)
        transports = [Transport(site, IPv4Address("TCP", f"10.0.0.{number}", 40000)) for number in range(3)]
        contents: list[Any] = []
        for transport in transports:
            transport.send(PIECES[1] + bytes(89))
            contents.append(transport.protocol.requests[0].content)
        self.assertEqual([code for code, *_ in transports[2].answers()], [503])
        self.assertEqual([content.closed for content in contents], [False, False, True])
        self.assertTrue(transports[2].is_open)
        transports[2].send(b"1")
        transports[0].send(b"1")
        self.assertEqual([code for code, *_ in transports[0].answers()], [200])
