"""The states of a NodeReconciler: each transition that is drawn is walked, and no other is possible."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from dapi.broker.node_reconciler import TRANSITIONS, NodeReconciler
from dapi.broker.node_reconciler import NodeReconcilerState as S
from dapi.broker.node_worker_commands import StopNodeCommand
from dapi.phases.duty import Duty
from tests.unit.broker.broker_case import BrokerTestCase
from tests.unit.broker.reconciler_case import GENERATE, INFERENCE

RETRY_SECONDS = 4.0

# The steps that lead from the beginning to each transition, in each way that is drawn.
WALKS = {
    (S.IDLE, S.COMMANDED): ["generate"],
    (S.IDLE, S.ON_DUTY): ["generate withdraw generate"],
    (S.IDLE, S.LEFT): ["leave"],
    (S.COMMANDED, S.ON_DUTY): ["generate"],
    (S.COMMANDED, S.RESTING): ["refuse generate"],
    (S.COMMANDED, S.CANCELLING): ["hold generate infer"],
    (S.COMMANDED, S.IDLE): ["hold generate withdraw release", "hold generate withdraw refuse release"],
    (S.COMMANDED, S.LEFT): ["hold generate leave"],
    (S.CANCELLING, S.IDLE): ["hold generate infer"],
    (S.CANCELLING, S.LEFT): ["hold hold_websocket generate infer leave"],
    (S.RESTING, S.IDLE): ["refuse generate wait", "refuse generate infer", "refuse generate withdraw"],
    (S.RESTING, S.LEFT): ["refuse generate leave"],
    (S.ON_DUTY, S.ASKED): ["generate wait", "generate withdraw wait wait generate"],
    (S.ON_DUTY, S.IDLE): ["generate infer", "generate withdraw", "generate intrude generate"],
    (S.ON_DUTY, S.LEFT): ["generate leave"],
    (S.ASKED, S.ON_DUTY): ["generate wait", "generate refuse wait"],
    (S.ASKED, S.IDLE): ["generate crash wait", "generate hold wait infer", "generate hold wait withdraw"],
    (S.ASKED, S.LEFT): ["generate hold wait leave"],
}


class WatchedReconciler(NodeReconciler):
    """Remembers its transitions."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made: list[tuple[S, S]] = []

    def _enter(self, state: S) -> None:
        before = self.state
        super()._enter(state)
        self.made.append((before, state))


class NodeReconcilerStateTests(BrokerTestCase):
    """The drawing at the top of node_reconciler.py is true, and complete."""

    def begin(self) -> None:
        """Take a new node."""
        self.name = f"node{len(self.stubs) + 1}"
        self.add(self.name)
        self.stub = self.stubs[self.name]
        self.node = WatchedReconciler(
            self.clock, self.worker(self.name), self.broker.command_for, lambda: RETRY_SECONDS
        )

    def walk(self, steps: str) -> None:
        for step in steps.split():
            getattr(self, step)()

    def generate(self) -> None:
        self.node.reconcile(GENERATE)

    def infer(self) -> None:
        self.node.reconcile(INFERENCE)

    def withdraw(self) -> None:
        self.node.reconcile(None)

    def intrude(self) -> None:
        """Somebody else gives the node a command."""
        self.worker(self.name).submit(StopNodeCommand())

    def leave(self) -> None:
        self.node.leave()

    def wait(self) -> None:
        self.clock.advance(RETRY_SECONDS)

    def crash(self) -> None:
        self.stub.state = "STOPPED"

    def refuse(self) -> None:
        self.stub.refused["state"] = 500
        self.stub.refused["pow/init/generate"] = 500

    def accept(self) -> None:
        self.stub.refused.clear()

    def hold(self) -> None:
        self.stub.held |= {"state"}

    def release(self) -> None:
        self.stub.release()

    def hold_websocket(self) -> None:
        self.websocket(self.name).closing = self.websocket(self.name).closing or Deferred()

    def release_websocket(self) -> None:
        websocket = self.websocket(self.name)
        closing, websocket.closing = websocket.closing, None
        if closing is not None:
            closing.callback(None)

    def test_each_transition_that_is_drawn(self) -> None:
        drawn = {(before, after) for before, follow in TRANSITIONS.items() for after in follow}
        self.assertEqual(drawn, set(WALKS))
        for transition, ways in WALKS.items():
            for steps in ways:
                self.begin()
                self.walk(steps)
                self.assertIn(transition, self.node.made, steps)

    def test_no_other(self) -> None:
        self.begin()
        for before, after in product(S, S):
            if after not in TRANSITIONS[before]:
                self.node.state = before
                error = self.assertRaises(RuntimeError, self.node._enter, after)
                self.assertEqual(f"node1: {before.name} does not lead to {after.name}", str(error))
                self.assertIs(before, self.node.state)

    def test_whatever_happens_it_is_on_duty_in_the_end(self) -> None:
        random = Random(1)
        steps = "generate infer withdraw intrude wait crash refuse accept hold release hold_websocket release_websocket"
        for _ in range(100):
            self.begin()
            walk = " ".join(random.choices(steps.split(), k=25))
            self.walk(f"{walk} release_websocket accept release generate wait wait generate wait")
            self.assertTrue(self.node.is_at(Duty.GENERATE), walk)
            self.assertEqual(("POW", "GENERATING"), (self.stub.state, self.stub.pow_status), walk)
            self.successResultOf(self.node.leave())
