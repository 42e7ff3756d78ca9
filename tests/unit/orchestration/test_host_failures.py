"""Whatever one of the host's tasks meets, the others have their turn, and people hear of it."""

from __future__ import annotations

from dapi.messages import Kind, State
from dapi.orchestration.seed import seed_signature
from dapi.simulator.chain.state import SettleAmount
from tests.unit.orchestration.conductor_case import KEY, RETRY_SECONDS
from tests.unit.orchestration.host_case import SETTLED, HostTestCase


class FailingTests(HostTestCase):
    """Whatever one task meets, the others have their turn."""

    def setUp(self) -> None:
        super().setUp()
        signature = seed_signature(KEY, 1)
        self.rpc.state.settle_amounts[KEY.address] = SettleAmount(KEY.address, 1000, 1, signature)

    def assert_done(self, *, but: str) -> None:
        done = {
            "MLNodeVersion": self.version.value == "v3.0.8",
            "HardwareNodes": bool(self.rows(Kind.HARDWARE)),
            "SettleAmount": bool(self.rows(Kind.CLAIM)),
            "EpochGroupData": self.host.status()["weight"]["epoch_index"] is not None,
        }
        self.assertEqual([name for name, is_done in done.items() if not is_done], [but])

    def fail_in_each_way(self, query: str, name: str) -> None:
        heights = iter(range(SETTLED, SETTLED + 100))
        for failures in (self.rpc.failing, self.rpc.broken, self.rpc.unknown):
            failures.add(query)
            for _ in range(5):
                self.move(next(heights))
                self.clock.advance(RETRY_SECONDS)
                self.settle()
            failures.clear()
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), failures is self.rpc.broken)
        self.assert_done(but=query)
        self.assertEqual(len(self.log.lines(containing=f"{name}: trying again in a few seconds")), 1)
        self.move(next(heights) + 10)
        self.assertEqual(self.host.status()["problems"], {})

    def test_the_declared_nodes(self) -> None:
        self.fail_in_each_way("HardwareNodes", "hardware_nodes")
        self.assertEqual(len(self.log.lines(containing="hardware_nodes: left out")), 1)

    def test_what_is_owed(self) -> None:
        self.fail_in_each_way("SettleAmount", "claim")
        self.assertEqual(len(self.log.lines(containing="claim: left out")), 1)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_the_weight(self) -> None:
        self.fail_in_each_way("EpochGroupData", "weight")
        self.assertEqual(len(self.log.lines(containing="weight: left out")), 1)

    def test_the_version(self) -> None:
        self.fail_in_each_way("MLNodeVersion", "node_version")

    def test_what_fails_for_long_is_a_warning(self) -> None:
        self.rpc.failing, self.rpc.unknown = {"SettleAmount"}, {"EpochGroupData"}
        for height in range(SETTLED, SETTLED + 30):
            self.move(height)
            self.assertEqual(self.told(), [])
            self.clock.advance(10)
        self.settle()
        warning = "claim: not looked after for 5 minutes: SettleAmount: no answer"
        self.assertEqual(self.told(), [warning])
        self.assertEqual(len(self.log.warnings("SettleAmount")), 1)
        self.rpc.failing = set()
        self.move(SETTLED + 31)
        self.assertEqual(self.told(), [])

    def test_a_query_that_fails_now_and_then_floods_no_log(self) -> None:
        for height in range(SETTLED, SETTLED + 20):
            self.rpc.failing = {"SettleAmount"} if height % 2 else set()
            self.move(height)
            self.clock.advance(2)
        self.assertEqual(len(self.log.warnings("claim: trying again")), 1)

    def test_what_the_chain_does_not_know_is_not_asked_for_every_few_seconds(self) -> None:
        self.rpc.unknown = {"SettleAmount", "EpochGroupData"}
        self.move(SETTLED)
        self.rpc.asked.clear()
        self.clock.advance(RETRY_SECONDS)
        self.settle()
        self.assertEqual(self.rpc.asked, [])
