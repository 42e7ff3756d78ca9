"""Why confirmed batches of a node count nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.host_pb2 import HardwareNode
from dapi.orchestration.counting import uncounted_nodes
from dapi.outbox.ledger import NodeLedger
from dapi.phases.host_queries import MemberWeight

KNOWN = frozenset({"a"})
WORKED = NodeLedger(generated=3, confirmed=3)


class UncountedTests(SynchronousTestCase):
    def reasons(self, weight: MemberWeight | None, *, has_seed: bool = True) -> dict[str, str]:
        ledger = {"counted": WORKED, "undeclared": WORKED, "unknown": WORKED, "fine": WORKED, "idle": NodeLedger()}
        declared = {
            "counted": HardwareNode(models=["a"]),
            "unknown": HardwareNode(models=["x"]),
            "fine": HardwareNode(models=["a"]),
        }
        return uncounted_nodes({**ledger, "": WORKED}, weight, declared, KNOWN, has_seed=has_seed)

    def test_reasons(self) -> None:
        self.assertEqual(
            self.reasons(MemberWeight(100, 100, {"counted": 100})),
            {
                "undeclared": "it is not declared on the chain",
                "unknown": "governance knows none of its models",
                "fine": "the chain does not count it",
            },
        )

    def test_a_participant_without_weight(self) -> None:
        self.assertEqual(set(self.reasons(None, has_seed=False).values()), {"the epoch's seed is not confirmed"})
        self.assertEqual(self.reasons(None)["fine"], "no majority of the verdicts found its batches valid")
        self.assertEqual(self.reasons(None)["undeclared"], "it is not declared on the chain")
