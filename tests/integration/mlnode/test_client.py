"""Calls to a node over real sockets: what only a real transport shows, and that nothing of a call is left."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient, MLNodeState
from tests.integration.certificates import Authority
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, soon
from tests.logs import captured_log

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Peer(Protocol):
    """One accepted connection; ``received`` is what came, ``lost`` fires when it is gone."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self.dripping: LoopingCall | None = None

    def connectionMade(self) -> None:
        self.factory.peers.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if b"\r\n\r\n" in self.received:
            self.factory.asked(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.dripping is not None:
            self.dripping.stop()
        self.lost.callback(None)


class Server(Factory):
    """Does with each request what ``answer`` does; remembers its connections."""

    protocol = Peer
    noisy = False

    def __init__(self, answer: Callable[[Peer], None]) -> None:
        self.peers: list[Peer] = []
        self.first_asked: Deferred[Peer] = Deferred()
        self._answer = answer

    def asked(self, peer: Peer) -> None:
        if not self.first_asked.called:
            self.first_asked.callback(peer)
        self._answer(peer)


@asynccontextmanager
async def node(
    answer: Callable[[Peer], None],
    *,
    scheme: str = "http",
    total_timeout_seconds: float = PATIENCE_SECONDS,
    authority: Authority | None = None,
    ca_file: str | None = None,
) -> AsyncIterator[tuple[Server, MLNodeClient]]:
    """A server, and a client of it; in the end no connection is left at either."""
    server = Server(answer)
    # Without an authority nobody vouches for its certificate.
    options = (authority or Authority()).options_for("127.0.0.1")
    wrapped = server if scheme == "http" else TLSMemoryBIOFactory(options, False, server)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(wrapped)
    base_url = f"{scheme}://127.0.0.1:{port.getHost().port}"
    client = MLNodeClient(
        reactor, base_url, node_id="node1", total_timeout_seconds=total_timeout_seconds, ca_file=ca_file
    )
    try:
        yield server, client
    finally:
        await client.close()
        for peer in server.peers:
            await soon(peer.lost)
        await port.stopListening()


def say(body: bytes, declared: int | None = None) -> Callable[[Peer], None]:
    """Answer with this body; ``declared`` is its length as the head tells it."""
    return lambda peer: peer.transport.write(HEAD % (declared or len(body)) + body)  # type: ignore[union-attr]


def drip(peer: Peer) -> None:
    """Answer with a body that goes on for ever, a byte at a time."""
    peer.transport.write(HEAD % 60000 + b'{"state":')  # type: ignore[union-attr]
    peer.dripping = LoopingCall(peer.transport.write, b" ")  # type: ignore[union-attr]
    peer.dripping.start(0.02)


def be_silent(peer: Peer) -> None:
    """Answer nothing."""


@pytest_twisted.ensureDeferred
async def test_each_call_has_a_connection_of_its_own() -> None:
    async with node(say(b'{"state": "POW"}')) as (server, client):
        for _ in range(3):
            assert await client.state() is MLNodeState.POW
        assert len(server.peers) == 3
        for peer in server.peers:
            # The server never closes: the client does, when it has its answer.
            await soon(peer.lost)
            assert b"connection: close" in peer.received.lower()


@pytest_twisted.ensureDeferred
async def test_time_out_ends_a_dripping_body() -> None:
    async with node(drip, total_timeout_seconds=1) as (server, client):
        with pytest.raises(MLNodeError, match=r"node1: state: no complete answer within 1 s"):
            await client.state()
        # Without close(): the failed call has ended its connection itself.
        await soon(server.peers[0].lost)


@pytest_twisted.ensureDeferred
async def test_time_out_ends_silence() -> None:
    async with node(be_silent, total_timeout_seconds=1) as (server, client):
        with pytest.raises(MLNodeError, match="no complete answer"):
            await client.stop()
        await soon(server.peers[0].lost)


@pytest_twisted.ensureDeferred
async def test_close_cuts_short_whatever_a_call_waits_for() -> None:
    for answer in (be_silent, drip):
        async with node(answer) as (server, client):
            calling = client.state()
            await server.first_asked
            await client.close()
            with pytest.raises(CancelledError):
                await calling


@pytest_twisted.ensureDeferred
async def test_answer_too_long_is_not_read_on() -> None:
    async with node(say(b"x" * 1_000_000, declared=100_000_000)) as (server, client):
        with pytest.raises(MLNodeError, match="longer than 65536 bytes"):
            await client.state()
        await soon(server.peers[0].lost)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, "more than 8 interim answers"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000, "the head of the answer has more than 65536 bytes"),
    ],
)
async def test_a_head_without_an_end_is_not_read_on(pieces: bytes, said: str) -> None:
    # By time, it would be read for as long as a call may take.
    with captured_log() as log:
        async with node(lambda peer: peer.transport.write(pieces)) as (server, client):  # type: ignore[union-attr]
            with pytest.raises(MLNodeError, match=f"node1: state: {said}"):
                await client.state()
            await soon(server.peers[0].lost)
    assert len(log.lines()) < 20


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer is no HTTP"),
        (b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n", "the answer is no HTTP"),
        (b"HTTP/1.1 " + b"x" * 10_000 + b" no\r\n\r\n", "non-integer status code"),
    ],
)
async def test_what_is_no_head_is_told_in_a_few_words(head: bytes, said: str) -> None:
    async with node(lambda peer: peer.transport.write(head)) as (_, client):  # type: ignore[union-attr]
        with pytest.raises(MLNodeError, match=said) as raised:
            await client.state()
    assert len(str(raised.value)) < 600


@pytest_twisted.ensureDeferred
async def test_nothing_is_decompressed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"

    def answer(peer: Peer) -> None:
        assert b"gzip" not in peer.received.lower()
        peer.transport.write(head % len(bomb) + bomb)  # type: ignore[union-attr]

    async with node(answer) as (_, client):
        # It comes to 48 kB, as it is.
        with pytest.raises(MLNodeError, match=r"node1: state \(200\): not the documented answer"):
            await client.state()


@pytest_twisted.ensureDeferred
async def test_answer_cut_off() -> None:
    def cut_off(peer: Peer) -> None:
        say(b'{"state": "POW"}', declared=100)(peer)
        peer.transport.loseConnection()  # type: ignore[union-attr]

    async with node(cut_off) as (_, client):
        with pytest.raises(MLNodeError, match="node1: state"):
            await client.state()


@pytest_twisted.ensureDeferred
async def test_nobody_listens() -> None:
    client = MLNodeClient(reactor, f"http://127.0.0.1:{free_port()}", node_id="node1")
    with pytest.raises(MLNodeError, match="Connection was refused"):
        await client.state()


@pytest_twisted.ensureDeferred
async def test_certificate_is_checked() -> None:
    async with node(say(b'{"state": "POW"}'), scheme="https") as (server, client):
        with pytest.raises(MLNodeError, match="certificate verify failed"):
            await client.state()
        assert not server.first_asked.called


@pytest_twisted.ensureDeferred
async def test_certificate_of_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority, state = Authority(), say(b'{"state": "POW"}')
    ca_file = authority.write(tmp_path)
    async with node(state, scheme="https", authority=authority, ca_file=ca_file) as (_, client):
        assert await client.state() is MLNodeState.POW
    async with node(state, scheme="https", authority=Authority("another"), ca_file=ca_file) as (server, client):
        with pytest.raises(MLNodeError, match="certificate verify failed"):
            await client.state()
        assert not server.first_asked.called


@pytest_twisted.ensureDeferred
async def test_time_out_ends_a_tls_handshake_that_is_not_answered() -> None:
    async with node(be_silent, total_timeout_seconds=1) as (server, client):
        over_tls = MLNodeClient(
            reactor, client.base_url.replace("http:", "https:"), node_id="node1", total_timeout_seconds=1
        )
        with pytest.raises(MLNodeError, match="no complete answer"):
            await over_tls.state()
        await soon(server.peers[0].lost)
