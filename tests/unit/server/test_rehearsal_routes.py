"""The routes about a rehearsal, over an in-memory HTTP connection: refused near a PoC, begun and told otherwise."""

from __future__ import annotations

from dapi.broker.rehearsal import RehearsalState, RehearsalStatus, RehearsalStep, RehearsalTimes, StepResult
from dapi.broker.rehearsals import Rehearsals
from dapi.errors import NotReadyError, UnknownNodeError
from dapi.phases.restart import RestartAdvice
from dapi.server.rehearsal_routes import RehearsalRoutes
from tests.fake_broker import FakePhaseStatus
from tests.unit.server.resource_client import ResourceClient
from tests.unit.server.test_admin import AdminTestCase

STEP = RehearsalStep("init", StepResult.PASS, "answered", 1.5)


class FakeRehearsals(Rehearsals):
    """Begins what it is told to, and tells what the test says."""

    def __init__(self) -> None:
        self.times = RehearsalTimes()
        self.begun: list[str] = []
        self.told = RehearsalStatus("n 1", RehearsalState.RUNNING, [STEP], None, 1_000_000_000.25, None)
        self.error: Exception | None = None

    def begin(self, node_id: str) -> RehearsalStatus:
        if self.error is not None:
            raise self.error
        self.begun.append(node_id)
        return self.told

    def status(self, node_id: str) -> RehearsalStatus:
        if self.error is not None:
            raise self.error
        return self.told


class RehearsalTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.rehearsals = FakeRehearsals()
        self.phases = FakePhaseStatus()
        self.offer(RehearsalRoutes(self.rehearsals, self.phases))

    def offer(self, routes: RehearsalRoutes) -> None:
        self.http = ResourceClient(self, self.api(others=routes.routes()).resource())

    def test_begin_and_look(self) -> None:
        expected = {
            "node_id": "n 1",
            "state": "running",
            "steps": [{"name": "init", "result": "PASS", "found": "answered", "seconds": 1.5, "to_do": None}],
            "nonces_per_second": None,
            "began_at": "2001-09-09T01:46:40.250Z",
            "ended_at": None,
        }
        self.assertEqual(self.got("POST", "/nodes/n%201/test"), (202, expected))
        self.assertEqual(self.got("GET", "/nodes/n%201/test"), (200, expected))
        self.assertEqual(self.rehearsals.begun, ["n 1"])

    def test_refused_in_a_poc_and_near_one(self) -> None:
        for advice, message in (
            (RestartAdvice(False, "the chain is in PoCGenerate", 0), "PoCGenerate"),
            (RestartAdvice(False, "where the chain is, is not known now"), "not known"),
            (RestartAdvice(True, blocks_left=80), "PoC starts in 80 blocks, and a test may take 81"),
            (RestartAdvice(True), "the network runs PoC v2"),
        ):
            self.phases.advice = advice
            self.assert_error(self.got("POST", "/nodes/a/test"), 409, message)
        self.assertEqual(self.rehearsals.begun, [])
        self.phases.advice = RestartAdvice(True, blocks_left=81)
        self.assertEqual(self.got("POST", "/nodes/a/test")[0], 202)

    def test_where_no_chain_is_followed(self) -> None:
        self.offer(RehearsalRoutes(self.rehearsals, None))
        self.assertEqual(self.got("POST", "/nodes/a/test")[0], 202)

    def test_errors(self) -> None:
        for error, code in ((UnknownNodeError("no node"), 404), (NotReadyError("under way"), 503)):
            self.rehearsals.error = error
            self.assert_error(self.got("POST", "/nodes/a/test"), code, str(error))
            self.assert_error(self.got("GET", "/nodes/a/test"), code, str(error))
