"""What becomes of a body when the disk is too slow, or fails: nothing of no use stays on it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.http.raw_client import RawAnswer
from dapi.relay import relay as relay_module
from dapi.relay.facts import Facts
from dapi.relay.payload import Payload, Place
from dapi.relay.relay import Relay, RelaySettings
from dapi.relay.rows import NewRow
from tests.logs import captured_log

TARGET = b"/v2/poc-batches/m/generated"


class Body:
    """One that has come; ``discarded`` counts how often it was thrown away."""

    in_memory = True
    target = TARGET
    length = 0

    def __init__(self) -> None:
        self.discarded = 0

    def discard(self) -> None:
        self.discarded += 1

    def read(self, _offset: int, _size: int) -> Deferred[bytes]:
        return succeed(b"")


class Store:
    """A disk that works when a test wants."""

    bytes = 0

    def __init__(self) -> None:
        self.written: Deferred[Facts] = Deferred()
        self.alone: list[bool] = []

    def now(self) -> float:
        return 0.0

    async def read(self, _body: Any) -> Facts:
        return await self.written

    async def look_through(self, _body: Any) -> Facts:
        return Facts()

    async def keep(self, row: NewRow, *, is_alone: bool) -> Payload | None:
        self.alone.append(is_alone)
        return Payload(1, Place("name", 0), row.body.target, (), 0, 0.0, row.said, row.facts)


class Container:
    """Answers what is passed on when a test wants."""

    def __init__(self) -> None:
        self.answer: Deferred[RawAnswer] = Deferred()

    async def request(self, *_: Any) -> RawAnswer:
        return await self.answer


class TakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        url = "http://127.0.0.1:9100"
        settings = RelaySettings(callback_url=url, public_url=url, admin_url=url)
        nothing: Any = None
        relay: Any = Relay(self.clock, nothing, "folder", settings, retry_delay=nothing)
        self.relay, self.store, self.container = relay, Store(), Container()
        self.relay.store, self.relay._pass_client = self.store, self.container
        self.relay.knowledge.learn_nodes(())
        self.body: Any = Body()
        self.answer: Deferred[RawAnswer | None] = Deferred.fromCoroutine(
            self.relay.take(b"POST", (), self.body, "127.0.0.1")
        )

    def be_slow(self) -> None:
        """Let the disk take longer than is waited for."""
        with captured_log() as log:
            self.clock.advance(5)
        self.assertEqual(len(log.lines(containing="the disk is too slow")), 1)

    def fail_to_write(self) -> None:
        with captured_log():
            self.store.written.errback(StoreBusyError("no room"))

    def test_kept_in_time_it_stays(self) -> None:
        self.store.written.callback(Facts())
        self.assertIsNone(self.successResultOf(self.answer))
        self.assertEqual((self.body.discarded, self.relay.book.counts["kept"]), (0, 1))
        self.assertEqual(self.store.alone, [False])

    def test_what_is_held_shares_no_file(self) -> None:
        self.store.written.callback(Facts(suspicion="made by no node"))
        self.assertIsNone(self.successResultOf(self.answer))
        self.assertEqual(self.store.alone, [True])

    def test_kept_after_it_was_passed_on_it_stays(self) -> None:
        self.be_slow()
        self.container.answer.callback(RawAnswer(200, None, b""))
        self.assertEqual(self.successResultOf(self.answer), RawAnswer(200, None, b""))
        self.assertEqual(self.body.discarded, 0)
        self.store.written.callback(Facts())
        self.assertEqual((self.body.discarded, self.relay.book.counts["kept"]), (0, 1))

    def test_a_disk_that_fails_after_it_was_too_slow_leaves_no_body(self) -> None:
        self.be_slow()
        self.container.answer.callback(RawAnswer(200, None, b""))
        self.successResultOf(self.answer)
        self.assertEqual(self.body.discarded, 0)
        self.fail_to_write()
        self.assertEqual(self.body.discarded, 1)

    def test_a_body_that_is_being_passed_on_is_not_deleted_under_it(self) -> None:
        self.be_slow()
        self.fail_to_write()
        self.assertEqual(self.body.discarded, 0)
        self.container.answer.callback(RawAnswer(503, None, b""))
        self.successResultOf(self.answer)
        self.assertEqual(self.body.discarded, 1)

    def test_what_is_too_much_after_the_disk_was_too_slow_leaves_no_body(self) -> None:
        self.relay.book.held_bytes = 2**40
        self.be_slow()
        self.container.answer.callback(RawAnswer(503, None, b""))
        self.successResultOf(self.answer)
        with captured_log():
            self.store.written.callback(Facts(suspicion="made by no node"))
        self.assertEqual((self.body.discarded, self.relay.book.counts["refused_as_too_much"]), (1, 1))

    def test_a_defect_costs_the_node_nothing(self) -> None:
        with captured_log() as log:
            self.store.written.errback(ZeroDivisionError())
        self.assertEqual(len(log.lines(containing="keeping a callback broke")), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.container.answer.callback(RawAnswer(200, None, b""))
        self.assertEqual(self.successResultOf(self.answer), RawAnswer(200, None, b""))
        self.assertEqual(self.body.discarded, 1)
        self.assertIn("ZeroDivisionError", self.relay.status()["passing"])

    def test_where_too_many_wait_it_is_told_that_nothing_is_kept(self) -> None:
        self.patch(relay_module, "_MAX_UNSETTLED", -1)
        with captured_log():
            answer = Deferred.fromCoroutine(self.relay.take(b"POST", (), self.body, "127.0.0.1"))
        self.container.answer.callback(RawAnswer(200, None, b""))
        self.assertEqual(self.successResultOf(answer), RawAnswer(200, None, b""))
        self.assertIn("wait already", self.relay.status()["passing"])

    def test_a_sender_that_went_away_before_the_disk_failed_leaves_no_body(self) -> None:
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.assertEqual(self.body.discarded, 0)
        self.fail_to_write()
        self.assertEqual(self.body.discarded, 1)

    def test_a_sender_that_went_away_before_it_was_kept_loses_nothing(self) -> None:
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.store.written.callback(Facts())
        self.assertEqual((self.body.discarded, self.relay.book.counts["kept"]), (0, 1))
