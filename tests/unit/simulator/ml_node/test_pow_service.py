"""Inits, restarts and stops of a simulated node, by the clock, with the times of a real one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.ledger import Ledger
from dapi.simulator.ml_node.pow_service import PowService
from dapi.simulator.ml_node.run import Phase, PowRun
from dapi.simulator.ml_node.sender import Sender
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import InitRequest
from tests.unit.simulator.ml_node.test_sender import Callbacks
from tests.unit.simulator.ml_node.test_work import init_body

OLD = InitRequest.from_body(init_body())
NEW = InitRequest.from_body(init_body(block_height=1001))


class PowServiceTests(SynchronousTestCase):
    """(docs/protocol/node.md, 'Restarts')"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.settings = MLNodeSettings()
        self.ledger = Ledger()
        self.callbacks = Callbacks()
        self.is_deaf = False
        self.service = PowService(
            self.clock,
            random.Random(1),
            settings=self.settings,
            ledger=self.ledger,
            make_sender=self.make_sender,
            deafness=self.deafness,
        )

    def tearDown(self) -> None:
        self.service.abandon()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def make_sender(self, run: PowRun) -> Sender:
        http = cast(HTTPClient, StubTreq(self.callbacks))
        return Sender(
            self.clock, random.Random(1), run, name="n", settings=self.settings, ledger=self.ledger, http=http
        )

    @contextmanager
    def deafness(self) -> Iterator[None]:
        self.is_deaf = True
        yield
        self.is_deaf = False

    def init(self, request: InitRequest, phase: Phase = "generate") -> Deferred[PowRun]:
        return Deferred.fromCoroutine(self.service.init(request, phase))

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.service.stop())

    def run_with(self, request: InitRequest) -> PowRun:
        initialized = self.init(request)
        self.clock.advance(1.1)
        return self.successResultOf(initialized)

    def status(self) -> object:
        return self.service.run and self.service.run.status["status"]

    def seconds_until(self, done: Deferred[Any]) -> float:
        """Advance in steps of 0.1 s until it fires."""
        began = self.clock.seconds()
        while not done.called:
            self.clock.advance(0.1)
        return round(self.clock.seconds() - began, 1)

    def test_an_init_from_idle_takes_its_time(self) -> None:
        initialized = self.init(OLD)
        self.clock.advance(1.0)
        self.assertNoResult(initialized)
        self.assertEqual(self.status(), "LOADING")
        self.clock.advance(0.1)
        self.assertIs(self.successResultOf(initialized), self.service.run)
        self.assertEqual(self.status(), "GENERATING")

    def test_a_stop_takes_3_to_5_seconds_and_answers_nothing_meanwhile(self) -> None:
        taken = []
        for _ in range(20):
            self.run_with(OLD)
            stopped = self.stop()
            self.assertTrue(self.is_deaf)
            taken.append(self.seconds_until(stopped))
            self.assertFalse(self.is_deaf)
            self.assertIsNone(self.service.run)
        self.assertTrue(all(3.0 <= seconds <= 5.1 for seconds in taken), taken)
        self.assertGreater(max(taken) - min(taken), 1.0)

    def test_a_restart_takes_2_to_6_seconds_and_answers_meanwhile(self) -> None:
        self.run_with(OLD)
        taken = []
        for number in range(20):
            request = (NEW, OLD)[number % 2]
            restarted = self.init(request)
            self.assertFalse(self.is_deaf)
            self.assertEqual(self.status(), "IDLE")
            taken.append(self.seconds_until(restarted))
            self.assertEqual(self.successResultOf(restarted).request, request)
        self.assertTrue(all(1.9 <= seconds <= 5.7 for seconds in taken), taken)
        self.assertGreater(max(taken) - min(taken), 1.5)

    def test_during_a_restart_it_is_idle_and_then_loads(self) -> None:
        self.run_with(OLD)
        restarted = self.init(NEW)
        statuses = []
        while not restarted.called:
            statuses.append(self.status())
            self.clock.advance(0.1)
        self.assertEqual(list(dict.fromkeys(statuses)), ["IDLE", "LOADING"])

    def test_an_init_equal_to_the_old_request_is_answered_by_the_run_that_ends(self) -> None:
        old = self.run_with(OLD)
        restarted = self.init(NEW)
        answered = self.successResultOf(self.init(OLD))
        self.assertIs(answered, old)
        self.assertEqual(answered.status["status"], "GENERATING")
        self.clock.pump([0.1] * 60)
        self.assertEqual(self.successResultOf(restarted).request, NEW)
        self.assertEqual(self.service.run and self.service.run.request, NEW)

    def test_an_init_equal_to_the_new_request_is_answered_by_the_run_that_starts(self) -> None:
        restarted = self.init(OLD)
        answered = self.successResultOf(self.init(OLD, "validate"))
        self.assertEqual(answered.status, {"status": "VALIDATING", "is_model_initialized": False})
        self.clock.advance(1.1)
        self.assertIs(self.successResultOf(restarted), answered)

    def test_an_equal_init_only_switches_the_phase(self) -> None:
        run = self.run_with(OLD)
        self.assertIs(self.successResultOf(self.init(OLD, "validate")), run)
        self.assertEqual(self.status(), "VALIDATING")

    def test_a_third_request_waits_for_the_end_of_the_restart(self) -> None:
        self.run_with(OLD)
        self.init(NEW)
        third = self.init(InitRequest.from_body(init_body(block_height=1002)))
        self.clock.pump([0.1] * 120)
        self.assertEqual(self.successResultOf(third).request.block_height, 1002)

    def test_a_sender_that_hangs_is_waited_for_5_seconds(self) -> None:
        self.callbacks.status = None
        self.run_with(OLD)
        self.clock.advance(5)
        self.assertEqual(len(self.ledger.batches), 1)
        self.settings.stop_seconds = (3.0, 3.0)
        self.assertIn(self.seconds_until(self.stop()), (5.0, 5.1))
        self.assertEqual(self.ledger.counts["lost"], 1)

    def test_its_own_restart_keeps_request_and_phase(self) -> None:
        old = self.run_with(OLD)
        restarted = Deferred.fromCoroutine(self.service.restart())
        self.clock.pump([0.1] * 60)
        self.successResultOf(restarted)
        self.assertIsNot(self.service.run, old)
        self.assertEqual(self.status(), "GENERATING")
