"""A reconciler for a broker whose nodes are stubs, and what it may be told to intend."""

from __future__ import annotations

from random import Random
from typing import Any

from dapi.broker.duties import Intention
from dapi.broker.node_reconciler import NodeStanding
from dapi.broker.reconciler import Reconciler
from dapi.phases.duty import Duty
from dapi.timing.retry import RetryDelay
from tests.nodes import StubNode
from tests.unit.broker.broker_case import BrokerTestCase

GENERATE = Intention(Duty.GENERATE, 1000, "AB", "02aa", 7)
VALIDATE = Intention(Duty.VALIDATE, 1000, "AB", "02aa", 7)
INFERENCE = Intention(Duty.INFERENCE)
STOPPED = Intention(Duty.STOPPED)
NEXT = Intention(Duty.GENERATE, 2000, "CD", "02aa", 8)

ASKED = ("state", "pow/status", "health", "inference/up/status")


class ReconcilerTestCase(BrokerTestCase):
    """Has a reconciler for a broker whose nodes are stubs; ``a`` is one of them."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1000)
        self.reconciler = self.make_reconciler()
        self.reconciler.startService()
        if self.is_started:
            self.add("a")

    def make_reconciler(self) -> Reconciler:
        return Reconciler(self.clock, self.broker, RetryDelay(Random(1)))

    @property
    def stub(self) -> StubNode:
        return self.stubs["a"]

    def intend(self, intention: Intention | None, *names: str) -> None:
        self.reconciler.intend({} if intention is None else dict.fromkeys(names or ("a",), intention))

    def told(self, name: str = "a") -> list[str]:
        """What the node was told since the last time it was looked at, without what it was only asked."""
        stub = self.stubs[name]
        events, stub.events[:] = list(stub.events), []
        return [event for event in events if event not in ASKED]

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps that add up exactly."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(1 / 8)

    def blocks(self, count: int) -> None:
        """Let blocks come, one each second."""
        for _ in range(count):
            self.advance(1)
            self.reconciler.reconcile()

    def standing(self, name: str = "a") -> NodeStanding:
        return self.reconciler.status()[name]

    def assert_standing(self, **expected: Any) -> None:
        standing = self.standing()
        self.assertEqual(expected, {name: getattr(standing, name) for name in expected})

    def last_init(self) -> dict[str, Any]:
        return [body for body in self.stub.bodies if body is not None][-1]  # type: ignore[no-any-return]
