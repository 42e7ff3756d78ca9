"""What was claimed and declared on another chain, as a test network that began anew leaves it, counts for nothing."""

from __future__ import annotations

from dapi.chain.rpc_answers import BlockInfo
from dapi.messages import Kind, State
from dapi.orchestration.seed import seed_signature
from dapi.simulator.chain.state import SettleAmount
from tests.unit.orchestration.conductor_case import KEY
from tests.unit.orchestration.host_case import SECOND_POC, SETTLED, HostTestCase


class AnotherChainTests(HostTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.rpc.state.settle_amounts[KEY.address] = SettleAmount(KEY.address, 1000, 1, seed_signature(KEY, 1))
        self.enter("AA")

    def enter(self, block_hash: str, other: str | None = None) -> None:
        """Enter the chain of a block."""
        self.successResultOf(self.submissions.enter_chain(BlockInfo("test", 20, 20, block_hash), other))

    def begin_anew(self) -> None:
        """Let the chain begin anew, and dapi with it."""
        self.end()
        self.enter("BB", "it began anew")
        self.rpc.state.hardware_nodes.clear()
        self.start()

    def test_the_same_epoch_is_claimed_again(self) -> None:
        self.move(SETTLED)
        self.include("paid 1000: Rewards claimed successfully")
        self.begin_anew()
        self.move(SETTLED)
        self.assertEqual([row.height for row in self.rows(Kind.CLAIM)], [SECOND_POC, -SECOND_POC])
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED, State.CONFIRMED])
        # Nor does what was paid there stand in for this one, whichever of the two is listed first.
        self.assertEqual(self.told(), [])

    def test_the_nodes_are_declared_at_once(self) -> None:
        self.move(SETTLED)
        self.include()
        self.begin_anew()
        # It was confirmed in a block that this chain will have soon.
        self.move(SETTLED - 5)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])
