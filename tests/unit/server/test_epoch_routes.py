"""What the admin API tells about the chain's epochs, and what it refuses while the chain drives the nodes."""

from __future__ import annotations

from typing import Any

from dapi.orchestration.restarts import Restarts
from dapi.phases.duty import Duty
from dapi.relay.api_answers import Epochs, StageWindow
from dapi.relay.knowledge import Knowledge
from tests.fake_broker import FakePhaseStatus
from tests.unit.server.test_admin import BLOCK, AdminTestCase


class DrivenTests(AdminTestCase):
    def api(self, **options: Any) -> Any:
        self.phases = FakePhaseStatus()
        return super().api(phases=self.phases, **options)

    def test_epochs(self) -> None:
        code, answered = self.got("GET", "/epochs?limit=3")
        self.assertEqual(code, 200)
        self.assertEqual(answered, {"epochs": [{"height": 1000, "nodes": {"node1": {"generated": 3}}}]})
        self.got("GET", "/epochs")
        self.assertEqual(self.phases.asked, [3, 5])

    def test_a_wrong_limit(self) -> None:
        for limit in ("0", "51", "-1", "x", "1.5", "9" * 5000):
            problem = f"limit: {limit!r} is no whole number from 1 to 50"
            self.assert_error(self.got("GET", f"/epochs?limit={limit}"), 400, problem)
        self.assertEqual(self.phases.asked, [])

    def test_restart(self) -> None:
        told = {"safe": True, "reason": None, "blocks_left": 100, "safe_at": None}
        self.assertEqual(self.got("GET", "/restart"), (200, told))

    def test_manual_commands_are_refused_unless_forced(self) -> None:
        for path, body in (("start", BLOCK), ("validate", BLOCK), ("stop", None), ("inference", None)):
            self.assert_error(self.got("POST", f"/poc/{path}", body), 409, "force=true")
            self.assert_error(self.got("POST", f"/poc/{path}?force=yes", body), 400, "true or false")
        self.assertEqual(self.broker.commands, [])
        for path, body in (("start", BLOCK), ("stop", None)):
            self.assertEqual(self.got("POST", f"/poc/{path}?force=true", body)[0], 200)
        self.assertEqual([command[0] for command in self.broker.commands], [Duty.GENERATE, Duty.STOPPED])


class PocV2Tests(AdminTestCase):
    def api(self, **options: Any) -> Any:
        self.limits: list[int] = []

        def latest(limit: int) -> list[dict[str, Any]]:
            self.limits.append(limit)
            return [{"height": 1000, "model": "m", "stored": 7}]

        return super().api(poc_v2=latest, **options)

    def test_stages_of_poc_v2_need_no_chain(self) -> None:
        told = {"epochs": [], "poc_v2": [{"height": 1000, "model": "m", "stored": 7}]}
        self.assertEqual(self.got("GET", "/epochs?limit=3"), (200, told))
        self.assertEqual(self.limits, [3])


class WatchedTests(AdminTestCase):
    def api(self, **options: Any) -> Any:
        knowledge = Knowledge(self.clock)
        knowledge.learn_epochs(Epochs(161, "", (StageWindow(100, 100, 160, 165, 185),), 500))
        return super().api(restarts=Restarts(None, knowledge, True), **options)

    def test_a_restart_of_the_api_container(self) -> None:
        code, told = self.got("GET", "/restart")
        self.assertEqual((code, told["safe"], told["safe_at"]), (200, False, 185))
        self.assertEqual(told["reason"], "stage 100 of PoC v2 takes results from block 165 on")
        self.assertIn("weights of the nodes", told["api_container"]["reason"])


class NotDrivenTests(AdminTestCase):
    def test_without_a_chain_there_is_nothing_to_tell(self) -> None:
        for path in ("/epochs", "/restart"):
            self.assert_error(self.got("GET", path), 404, "no chain is followed")
