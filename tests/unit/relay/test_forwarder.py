"""When the forwarder tries what, while the container is away, hangs, and is back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.exchange import NoAnswerError
from dapi.http.raw_client import RawAnswer
from dapi.relay.answers import Meaning
from dapi.relay.api_answers import Epochs, StageWindow
from dapi.relay.book import Book
from dapi.relay.facts import Facts, Target
from dapi.relay.forwarder import Forwarder
from dapi.relay.knowledge import Knowledge
from dapi.relay.payload import Payload, PayloadState, Place
from tests.logs import captured_log, log_of

STAGE = StageWindow(100, 100, 160, 165, 185)


class FakeClient:
    """Keeps the requests; a test answers them."""

    def __init__(self) -> None:
        self.requests: list[Deferred[RawAnswer]] = []
        self._targets: list[bytes] = []

    async def request(self, _method: bytes, target: bytes, *_: Any) -> RawAnswer:
        request: Deferred[RawAnswer] = Deferred()
        self.requests.append(request)
        self._targets.append(target)
        return await request

    def under_way(self) -> list[tuple[bytes, Deferred[RawAnswer]]]:
        """Return the requests that are not answered, with their targets."""
        both = zip(self._targets, self.requests, strict=True)
        return [(target, request) for target, request in both if not request.called]

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = Deferred()
        closed.callback(None)
        return closed


class FakeStore:
    """Nothing is read of it."""

    bytes = 0

    def source(self, _: Payload) -> None:
        return None

    def now(self) -> float:
        return 0.0

    async def finish(self, _: object) -> None:
        return None

    async def drop_bodies(self, _: object) -> None:
        return None


class ForwarderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.client, store = FakeClient(), FakeStore()
        self.knowledge = Knowledge(self.clock, now=self.clock.seconds)
        self.knowledge.learn_epochs(Epochs(101, "", (STAGE,), 500))
        self.knowledge.learn_nodes(())
        self.book = Book(store)  # type: ignore[arg-type]
        self.forwarder = Forwarder(
            self.clock,
            store,  # type: ignore[arg-type]
            self.client,  # type: ignore[arg-type]
            self.knowledge,
            self.book,
        )
        self.forwarder.startService()
        self.addCleanup(self.forwarder.stopService)
        self.turns = 0

    def add(self, *numbers: int) -> None:
        for number in numbers:
            facts = Facts(100, number % 5, range(number, number + 1), None, number, 0, number)
            self.forwarder.add(Payload(number, Place("", 0), b"/", (), 1, 0.0, Target("m", "generated"), facts))
        self.clock.advance(0)

    def run_for(self, seconds: float) -> int:
        """Let time pass; return how many requests began meanwhile."""
        before = len(self.client.requests)
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
        return len(self.client.requests) - before

    def refuse(self) -> None:
        for request in self.client.requests:
            if not request.called:
                request.errback(NoAnswerError("refused"))

    def test_while_it_is_away_one_payload_a_second_is_tried(self) -> None:
        self.add(1)
        self.refuse()
        self.add(*range(2, 40))
        for _ in range(20):
            self.assertEqual(self.run_for(1.1), 1)
            self.refuse()
        self.assertIsNotNone(self.forwarder.away)

    def test_a_probe_that_hangs_does_not_hide_that_it_is_back(self) -> None:
        self.add(1)
        self.refuse()
        self.add(*range(2, 40))
        self.assertEqual(self.run_for(3.5), 1)
        self.assertEqual(self.run_for(3), 1)
        self.assertEqual(self.run_for(30), 2, "four hang at most")
        self.client.requests[-1].callback(RawAnswer(200, None, b""))
        self.assertIsNone(self.forwarder.away)
        self.run_for(0.5)
        self.assertGreater(len(self.client.requests), 10)
        self.assertEqual(self.book.counts["taken"], 1)

    def test_a_body_that_cannot_be_read_says_nothing_about_the_container(self) -> None:
        self.add(1, 2)
        with captured_log():
            self.client.requests[0].errback(OSError(61, "the body to be sent is shorter than it was"))
        self.assertIsNone(self.forwarder.away)
        self.assertIn("shorter", self.forwarder.problems[Meaning.UNREADABLE][1])
        self.client.requests[1].callback(RawAnswer(200, None, b""))
        self.assertEqual((self.run_for(4.8), self.run_for(0.5)), (0, 1))

    def test_near_the_end_a_try_that_hangs_is_given_up_soon(self) -> None:
        self.knowledge.learn_epochs(Epochs(158, "", (STAGE,), 500))
        self.add(1)
        self.assertEqual(len(self.client.requests), 1)
        self.run_for(5.2)
        self.assertIsNotNone(self.forwarder.away)
        self.assertEqual(self.run_for(1.1), 1)

    def validate_at(self, height: int, *numbers: int) -> None:
        """Have results of the stage handed on while the chain is at ``height``, with blocks of 5 s."""
        self.knowledge.learn_epochs(Epochs(height, "", (STAGE,), 500))
        self.knowledge.block_seconds = 5.0
        for number in numbers:
            facts = Facts(100, number % 5)
            self.forwarder.add(Payload(number, Place("", 0), b"/", (), 1, 0.0, Target("m", "validated"), facts))
        self.clock.advance(0)

    def answer(self, status: int, error: str = "") -> None:
        """Answer what is under way."""
        body = b'{"error": "%s"}' % error.encode() if error else b""
        for request in self.client.requests:
            if not request.called:
                request.callback(RawAnswer(status, None, body))

    def test_a_result_that_five_answers_500_refuse_is_set_aside(self) -> None:
        """docs/protocol/poc-v2.md, 'Answers'."""
        self.validate_at(170, 1)
        for seconds in (2, 4, 8, 16):
            self.answer(500, "encoding/hex: invalid byte: U+0078 'x'")
            self.assertEqual(self.run_for(seconds - 0.1), 0, "a hand-over that fails has half a minute")
            self.assertEqual(self.run_for(0.2), 1)
        self.assertEqual(self.book.counts["set_aside"], 0)
        self.answer(500, "encoding/hex: invalid byte: U+0078 'x'")
        self.assertEqual(self.run_for(60), 0)
        self.assertEqual(self.book.counts["set_aside"], 1)

    def test_no_other_failure_of_a_result_brings_it_nearer_to_that(self) -> None:
        """docs/protocol/poc-v2.md, 'Answers': 503 of any words, and no answer at all, say nothing about the result."""
        self.validate_at(166, 1)
        for _ in range(10):
            for status, error in ((503, "not in PoC validate phase"), (503, "no room"), (502, ""), (404, "Not Found")):
                self.answer(status, error)
                self.assertGreaterEqual(self.run_for(6), 1, error)
        self.refuse()
        self.run_for(2)
        for _ in range(4):
            self.answer(500, "failed")
            self.run_for(17)
        self.answer(200)
        self.assertEqual((self.book.counts["settled"], self.book.counts["set_aside"]), (1, 0))

    def test_a_result_whose_answer_came_is_not_sent_again(self) -> None:
        self.validate_at(170, 1, 2)
        self.assertEqual(len(self.client.requests), 2)
        self.client.requests[0].callback(RawAnswer(200, None, b""))
        self.client.requests[1].errback(NoAnswerError("reset"))
        self.assertEqual(self.run_for(5), 1, "the other one")
        self.answer(200)
        self.assertEqual(self.run_for(60), 0)
        self.assertEqual(self.book.counts["settled"], 2)

    def test_a_try_of_a_result_that_hangs_leaves_time_for_another_one_before_validation_ends(self) -> None:
        self.validate_at(STAGE.validation_start, 1)
        self.assertEqual(self.run_for(54), 0)
        self.run_for(1.2)
        self.assertIsNotNone(self.forwarder.away, "45 s before the end")
        self.validate_at(177)
        self.assertEqual(self.run_for(1.1), 1)
        self.answer(200)
        self.assertEqual(self.book.counts["settled"], 1)

    def test_near_the_end_of_validation_a_try_that_hangs_is_given_up_soon(self) -> None:
        self.validate_at(180, 1)
        self.run_for(5.2)
        self.assertIsNotNone(self.forwarder.away)
        self.assertEqual(self.run_for(1.1), 1)

    def test_a_defect_is_told_once_a_minute_and_loses_nothing(self) -> None:
        log = log_of(self)
        self.add(*range(1, 5))
        for request in self.client.requests:
            request.errback(ZeroDivisionError())
        self.assertGreater(len(self.client.requests), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(log.lines(containing="handing a callback on broke")), 1)
        self.assertEqual(self.run_for(40), 4)

    def test_one_that_is_never_answered_holds_no_other_of_its_node_up(self) -> None:
        """The container may fail at one body, and close its connection without an answer."""
        log = log_of(self)
        for number in range(1, 51):
            facts = Facts(100, 1, range(number, number + 1), None, number, 0, number)
            target = Target("m", "generated")
            self.forwarder.add(Payload(number, Place("", 0), b"%d" % number, (), 1, 0.0, target, facts))
            for _ in range(20):
                self.clock.advance(0.1)
                for path, request in self.client.under_way():
                    if path == b"1":
                        request.errback(NoAnswerError("closed without an answer"))
                    else:
                        request.callback(RawAnswer(200, None, b""))
        self.assertEqual(self.book.counts["taken"], 49)
        for words in ("is away", "is back"):
            self.assertLessEqual(len(log.lines(containing=words)), 2)

    def test_it_does_not_spin_while_it_is_away(self) -> None:
        self.add(1)
        self.refuse()
        for _ in range(2):
            self.run_for(20)
            (waiting,) = [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()][:1]
            self.assertGreater(waiting, 0.05)
            # Nothing is left to be tried: all that waits is under way.
            self.add(*range(2, 4))

    def test_the_nonces_of_a_stage_are_forgotten_once_it_is_over_and_nothing_of_it_is_open(self) -> None:
        key = (100, "m")
        self.add(1)
        self.client.requests[0].callback(RawAnswer(200, None, b""))
        ledger = self.book.ledgers[key]
        for is_over, is_forgotten in ((False, False), (True, False), (True, True)):
            if is_forgotten:
                self.book.settle(list(self.book.taken[key]))
            over = {100} if is_over else set()
            self.book.end_stages(lambda _: False, takes_no_more=over.__contains__)
            before = ledger.is_exact
            ledger.sending(range(1, 2))
            self.assertEqual((before, ledger.is_exact), (True, not is_forgotten))
        self.assertEqual(ledger.handed_on, 1)

    def test_a_host_of_many_models_has_all_of_them_handed_on(self) -> None:
        """No more than 32 ledgers are kept, and the lowest one goes first."""
        for model in range(40, 0, -1):
            facts = Facts(100, 1, range(model, model + 1), None, model, 0, model)
            target = Target(f"m{model:02}", "generated")
            self.forwarder.add(Payload(model, Place("", 0), b"/", (), 1, 0.0, target, facts))
            self.clock.advance(0)
            self.client.requests[-1].callback(RawAnswer(200, None, b""))
            self.assertIn((100, f"m{model:02}"), self.book.ledgers)
        self.assertEqual((self.book.counts["taken"], len(self.book.ledgers)), (40, 32))

    def test_what_is_late_is_not_tried(self) -> None:
        self.add(1)
        self.refuse()
        self.knowledge.learn_epochs(Epochs(161, "", (STAGE,), 500))
        self.assertEqual(self.run_for(10), 0)
        self.assertEqual(self.book.counts[PayloadState.LATE], 1)
