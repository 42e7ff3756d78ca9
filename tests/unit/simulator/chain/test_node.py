"""What one node of the simulated chain says, that another may not."""

from __future__ import annotations

import base64
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.blocks import Blockchain
from dapi.simulator.chain.epochs import Epochs
from dapi.simulator.chain.mempool import MempoolRefused
from dapi.simulator.chain.methods import Methods, RpcError
from dapi.simulator.chain.node import ChainNode
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.state import Account, ChainState
from dapi.simulator.chain.transactions import hash_of
from dapi.simulator.chain.wire import bytes_field, varint_field
from tests.chain_tools import CHAIN_ID, SECOND_NS, Key, batch, transaction
from tests.unit.simulator.chain.chain_in_memory import OK, START_NS, ChainInMemory

ACCOUNT_INFO = "/cosmos.auth.v1beta1.Query/AccountInfo"
STAGE = "/inference.inference.Query/PocBatchesForStage"


def ask(node: ChainNode, path: str, data: bytes, height: int = 0) -> dict[str, Any]:
    """The ``response`` of an abci_query."""
    params = {"path": path, "data": data.hex(), "height": str(height), "prove": False}
    response: dict[str, Any] = Methods(node).call("abci_query", params)["response"]
    return response


class NodeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.raw = self.network.tx(self.network.batch())

    def refusal(self, node: ChainNode, raw: bytes) -> str:
        return str(self.assertRaises(MempoolRefused, node.broadcast, raw))

    def error(self, node: ChainNode, method: str, **params: Any) -> str:
        error: RpcError = self.assertRaises(RpcError, Methods(node).call, method, params)
        return error.data


class LimitTests(NodeTestCase):
    """One node's limits and prices: docs/protocol/measured.md, 'Chain nodes that fail'."""

    def test_a_minimum_gas_price_refuses_at_this_node_only(self) -> None:
        dear = self.network.add_node(minimum_gas_price=0.025)
        result = dear.broadcast(self.raw)
        self.assertEqual((result.codespace, result.code), ("sdk", 13))
        self.assertIn("insufficient fees; got:  required: 25000000ngonka", result.log)
        self.assertEqual(self.network.check(self.raw), OK)
        self.assertEqual(dear.broadcast(self.network.tx(self.network.batch(), fee=25_000_000)).code, 0)

    def test_full_by_bytes(self) -> None:
        self.network.node.mempool.max_txs_bytes = len(self.raw) - 1
        words = f"mempool is full: number of txs 0 (max: 5000), total txs bytes 0 (max: {len(self.raw) - 1})"
        self.assertEqual(self.refusal(self.network.node, self.raw), words)

    def test_full_by_number_until_a_block_makes_room(self) -> None:
        self.network.node.mempool.max_txs = 1
        self.network.check(self.raw)
        other = self.network.tx(self.network.batch(batch_id="b-2"))
        words = f"mempool is full: number of txs 1 (max: 1), total txs bytes {len(self.raw)} (max: 1073741824)"
        self.assertEqual(self.refusal(self.network.node, other), words)
        self.network.advance(11)
        self.assertEqual(self.network.check(other), OK)

    def test_a_lower_limit_for_one_transaction(self) -> None:
        self.network.node.mempool.max_tx_bytes = 100
        words = f"Tx too large. Max size is 100, but got {len(self.raw)}"
        self.assertEqual(self.refusal(self.network.node, self.raw), words)
        self.assertEqual(
            self.error(self.network.node, "broadcast_tx_sync", tx=base64.b64encode(self.raw).decode()), words
        )


class LookUpTests(NodeTestCase):
    """What is found without an index, and what was pruned: docs/protocol/measured.md, 'Queries on a real chain'."""

    def setUp(self) -> None:
        super().setUp()
        self.failed = self.network.tx(self.network.batch(node_id=""))
        self.network.check(self.raw)
        self.network.check(self.failed)
        self.network.advance(20)

    def test_without_an_index_no_transaction_is_found_by_its_hash(self) -> None:
        self.network.node.switches.is_indexing_off = True
        status = Methods(self.network.node).call("status", {})
        self.assertEqual(status["node_info"]["other"]["tx_index"], "off")
        for raw in (self.raw, b"never sent"):
            tx_hash = base64.b64encode(bytes.fromhex(hash_of(raw))).decode()
            self.assertEqual(self.error(self.network.node, "tx", hash=tx_hash), "transaction indexing is disabled")

    def test_but_in_its_block_with_its_code_at_the_same_index(self) -> None:
        self.network.node.switches.is_indexing_off = True
        methods = Methods(self.network.node)
        txs = methods.call("block", {"height": "11"})["block"]["data"]["txs"]
        self.assertEqual([base64.b64decode(tx) for tx in txs], [self.raw, self.failed])
        results = methods.call("block_results", {"height": "11"})
        self.assertEqual(results["height"], "11")
        self.assertEqual(
            [(result["codespace"], result["code"]) for result in results["txs_results"]], [OK, ("inference", 1145)]
        )
        self.assertIsNone(methods.call("block_results", {"height": "12"})["txs_results"])

    def test_pruned_state(self) -> None:
        self.network.node.settings.kept_states = 4
        request = bytes_field(1, self.network.key.address)
        self.assertEqual(ask(self.network.node, ACCOUNT_INFO, request, 17)["code"], 0)
        pruned = ask(self.network.node, ACCOUNT_INFO, request, 15)
        self.assertEqual((pruned["codespace"], pruned["code"], pruned["value"]), ("sdk", 38, None))
        self.assertIn("failed to load state at height 15", pruned["log"])

    def test_pruned_blocks(self) -> None:
        self.network.node.settings.kept_blocks = 5
        for method in ("block", "block_results"):
            self.assertEqual(
                self.error(self.network.node, method, height="15"), "height 15 is not available, lowest height is 16"
            )
        self.assertEqual(Methods(self.network.node).call("block", {"height": "16"})["block"]["header"]["height"], "16")
        status = Methods(self.network.node).call("status", {})
        self.assertEqual(status["sync_info"]["earliest_block_height"], "16")

    def test_heights_to_come(self) -> None:
        words = "height 21 must be less than or equal to the current blockchain height 20"
        self.assertEqual(self.error(self.network.node, "block", height="21"), words)
        future = ask(self.network.node, ACCOUNT_INFO, b"", 21)
        self.assertEqual(future["code"], 26)
        self.assertIn("cannot query with height in the future", future["log"])

    def test_the_height_of_a_new_block_may_be_in_the_future_once(self) -> None:
        self.network.node.switches.is_state_late = True
        request = bytes_field(1, self.network.key.address)
        for height in (20, 21):
            self.network.advance(height)
            self.assertEqual(ask(self.network.node, ACCOUNT_INFO, request, height - 1)["code"], 0)
            codes = [ask(self.network.node, ACCOUNT_INFO, request, height)["code"] for _ in range(3)]
            self.assertEqual(codes, [26, 0, 0])

    def test_a_query_shows_the_state_of_its_height(self) -> None:
        stage = varint_field(1, 10)
        self.assertEqual(ask(self.network.node, STAGE, stage, 10)["value"], "")
        self.assertNotEqual(ask(self.network.node, STAGE, stage, 11)["value"], "")
        request = bytes_field(1, self.network.key.address)
        before, after = (ask(self.network.node, ACCOUNT_INFO, request, height)["value"] for height in (10, 11))
        self.assertNotIn(self.network.key.public, base64.b64decode(before))
        self.assertIn(self.network.key.public, base64.b64decode(after))


class FirstBlockTests(SynchronousTestCase):
    """Before a node's first block: docs/protocol/measured.md, 'Queries on a real chain'."""

    def test_nothing_is_taken_and_nothing_is_known(self) -> None:
        key = Key(1)
        state = ChainState(CHAIN_ID, Epochs(), Rules())
        state.accounts[key.address] = Account(key.address, 1)
        chain = Blockchain(state, START_NS, has_first_block=False)
        node = ChainNode(chain, random.Random(1))
        status = Methods(node).call("status", {})["sync_info"]
        self.assertEqual((status["latest_block_height"], status["latest_block_time"]), ("0", "1970-01-01T00:00:00Z"))
        raw = transaction(key, batch(key.address), timeout_ns=START_NS + 60 * SECOND_NS)
        result = node.broadcast(raw)
        self.assertEqual((result.codespace, result.code), ("sdk", 18))
        self.assertIn("unordered tx ttl exceeds 10m0s", result.log)
        answer = ask(node, ACCOUNT_INFO, bytes_field(1, key.address))
        self.assertEqual((answer["code"], answer["log"]), (18, "inference is not ready; please wait for first block"))
        chain.produce_block(START_NS)
        self.assertTrue(node.follow())
        self.assertEqual(node.broadcast(raw).code, 0)
        self.assertEqual(ask(node, ACCOUNT_INFO, bytes_field(1, key.address))["code"], 0)


class ApartTests(NodeTestCase):
    """A node that is cut off, or behind: docs/protocol/measured.md, 'Chain nodes that fail'."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.network.add_node()

    def status(self) -> tuple[str, str, bool]:
        sync = Methods(self.other).call("status", {})["sync_info"]
        return sync["latest_block_height"], sync["latest_block_time"], sync["catching_up"]

    def test_partitioned_it_looks_healthy_and_stands_still(self) -> None:
        self.other.partition()
        before = self.status()
        self.network.advance(15)
        self.assertEqual(self.status(), before)
        self.assertFalse(before[2])
        words = "height 15 must be less than or equal to the current blockchain height 10"
        self.assertEqual(self.error(self.other, "block", height="15"), words)

    def test_partitioned_it_takes_transactions_that_reach_nobody(self) -> None:
        self.other.partition()
        self.assertEqual(self.other.broadcast(self.raw).code, 0)
        self.assertEqual(self.refusal(self.other, self.raw), "tx already exists in cache")
        self.network.advance(12)
        self.assertEqual(self.network.chain.ledger, [])
        self.assertEqual(len(self.other.mempool), 1)

    def test_it_knows_nothing_of_what_came_meanwhile(self) -> None:
        self.other.partition()
        self.assertEqual(self.network.deliver(self.raw), OK)
        self.assertIsNone(self.other.find(hash_of(self.raw)))
        # In its state the timestamp is unused.
        self.assertEqual(self.other.broadcast(self.raw).code, 0)

    def test_connected_again_it_passes_on_what_it_took_and_follows(self) -> None:
        self.other.partition()
        self.other.broadcast(self.raw)
        self.network.advance(15)
        self.other.reconnect()
        self.assertEqual(self.other.height, 10, "it does not leap")
        self.network.advance(16)
        self.assertEqual(self.network.chain.batch_counts(), {"b-1": 1})
        heights = []
        while self.other.is_behind:
            self.other.step()
            heights.append(self.other.height)
            self.assertFalse(self.status()[2])
        self.assertEqual(heights, list(range(11, 17)))
        self.assertEqual(len(self.other.mempool), 0)
        self.network.advance(17)
        self.assertEqual(self.other.height, 17)

    def test_what_expired_meanwhile_reaches_nobody(self) -> None:
        self.other.partition()
        self.other.broadcast(self.raw)
        self.network.advance(10 + 62)
        self.other.reconnect()
        self.assertEqual(len(self.network.chain.mempool), 0)

    def test_what_another_node_brought_meanwhile_is_not_delivered_twice(self) -> None:
        self.other.partition()
        self.other.broadcast(self.raw)
        self.assertEqual(self.network.deliver(self.raw), OK)
        self.other.reconnect()
        self.network.advance(13)
        self.assertEqual(self.network.chain.batch_counts(), {"b-1": 1})

    def test_lagging_it_stays_behind(self) -> None:
        self.other.switches.lag_blocks = 3
        self.network.advance(20)
        self.assertEqual((self.other.height, self.other.is_behind), (17, False))
        self.assertEqual(self.status()[0], "17")
        self.other.switches.lag_blocks = 0
        self.assertTrue(self.other.is_behind)

    def test_catching_up_it_passes_on_what_it_took_only_afterwards(self) -> None:
        self.other.switches.is_catching_up = True
        self.other.broadcast(self.raw)
        self.assertTrue(self.status()[2])
        self.network.advance(12)
        self.assertEqual(self.network.chain.ledger, [])
        self.other.switches.is_catching_up = False
        self.network.advance(14)
        self.assertEqual(self.network.chain.batch_counts(), {"b-1": 1})

    def test_a_node_of_another_chain_starts_with_an_empty_mempool(self) -> None:
        self.other.broadcast(self.raw)
        state = ChainState("another", Epochs(), Rules())
        self.other.join(Blockchain(state, START_NS))
        self.assertEqual((self.other.height, len(self.other.mempool)), (1, 0))
        self.assertEqual(Methods(self.other).call("status", {})["node_info"]["network"], "another")


class GossipTests(NodeTestCase):
    """What one node takes, all others know after its block."""

    def test_the_same_bytes_at_another_node_after_their_block(self) -> None:
        other = self.network.add_node()
        self.assertEqual(self.network.deliver(self.raw), OK)
        self.assertEqual(self.refusal(other, self.raw), "tx already exists in cache")

    def test_a_failed_transaction_may_come_again_there(self) -> None:
        other = self.network.add_node()
        failed = self.network.tx(self.network.batch(node_id=""))
        self.network.deliver(failed)
        self.assertEqual(other.broadcast(failed).code, 18, "its timestamp is used")

    def test_what_the_validators_have_no_room_for_reaches_no_block(self) -> None:
        self.network.chain.mempool.max_txs = 0
        self.assertEqual(self.network.check(self.raw), OK)
        self.network.advance(12)
        self.assertEqual(self.network.chain.ledger, [])
