"""The simulated chain's mempool, ledger and methods; what runs on sockets is in the integration tests."""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.epochs import ConfirmationEvent
from dapi.simulator.chain.mempool import Mempool, MempoolRefused
from dapi.simulator.chain.methods import Methods, RpcError, format_time, new_block_event
from dapi.simulator.chain.transactions import decode_transaction
from dapi.simulator.chain.wire import bytes_field, message_field, varint_field
from tests.chain_tools import (
    CHAIN_ID,
    SECOND_NS,
    Key,
)
from tests.unit.simulator.chain.chain_in_memory import OK, START_NS, ChainInMemory


class MempoolTests(SynchronousTestCase):
    """What is refused before CheckTx, and what is forgotten."""

    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.raw = self.network.tx(self.network.batch())

    def refusal(self, raw: bytes) -> str:
        return str(self.assertRaises(MempoolRefused, self.network.node.broadcast, raw))

    def test_the_same_bytes_while_they_wait_and_after_their_block(self) -> None:
        self.network.check(self.raw)
        self.assertEqual(self.refusal(self.raw), "tx already exists in cache")
        self.network.advance(11)
        self.assertEqual(self.refusal(self.raw), "tx already exists in cache")

    def test_what_check_tx_refused_may_come_again(self) -> None:
        wrong = self.network.tx(self.network.batch(), gas_limit=0)
        self.assertEqual(self.network.check(wrong), ("sdk", 41))
        self.assertEqual(self.network.check(wrong), ("sdk", 41))

    def test_full(self) -> None:
        self.network.node.mempool.max_txs = 1
        self.network.check(self.raw)
        other = self.network.tx(self.network.batch(batch_id="b-2"))
        self.assertTrue(self.refusal(other).startswith("mempool is full: number of txs 1 (max: 1)"))
        self.network.advance(11)
        self.assertEqual(self.network.check(other), OK)

    def test_switches(self) -> None:
        switches = self.network.node.switches
        switches.is_mempool_full = True
        self.assertIn("mempool is full", self.refusal(self.raw))
        switches.is_mempool_full = False
        switches.is_mempool_rechecking = True
        self.assertIn("still rechecking", self.refusal(self.raw))
        self.assertNotIn("mempool is full", self.refusal(self.raw))
        switches.is_mempool_rechecking = False
        switches.loses_confirmations = True
        self.assertIn("broadcast confirmation not received", self.refusal(self.raw))
        self.network.advance(11)
        self.assertEqual(self.network.chain.batch_counts(), {"b-1": 1})

    def test_too_large(self) -> None:
        self.assertEqual(self.refusal(bytes(1_048_577)), "Tx too large. Max size is 1048576, but got 1048577")

    def test_the_cache_is_bounded(self) -> None:
        mempool = Mempool(cache_size=2)
        for tx_hash in ("a", "b", "c", "a"):
            mempool.admit(tx_hash, 1)
        self.assertRaises(MempoolRefused, mempool.admit, "c", 1)

    def test_dropped_transactions_stay_known_and_get_into_no_block(self) -> None:
        self.network.node.switches.drop_fraction = 1.0
        self.assertEqual(self.network.check(self.raw), OK)
        self.network.advance(13)
        self.assertEqual(self.network.chain.ledger, [])
        self.assertEqual(self.refusal(self.raw), "tx already exists in cache")
        self.network.node.switches.drop_fraction = 0.0
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch())), OK)

    def test_a_fraction_is_dropped(self) -> None:
        self.network.node.switches.drop_fraction = 0.2
        for number in range(200):
            self.network.check(self.network.tx(self.network.batch(batch_id=f"b-{number}")))
        self.assertTrue(120 <= len(self.network.node.mempool) <= 190)

    def test_what_a_block_makes_impossible_is_dropped_after_it(self) -> None:
        blocks_worth = self.network.tx(self.network.batch(), timeout_ns=self.network.now_ns + SECOND_NS // 2)
        self.network.check(blocks_worth)
        self.network.node.mempool.take = lambda *limits: []  # type: ignore[method-assign]
        self.network.advance(11)
        self.assertEqual(len(self.network.node.mempool), 0)
        self.assertEqual(self.network.check(blocks_worth), ("sdk", 42))


class LedgerTests(SynchronousTestCase):
    """What tests of dapi look at."""

    def test_doubles_are_seen(self) -> None:
        network = ChainInMemory()
        first, second = network.tx(network.batch()), network.tx(network.batch())
        network.deliver(first)
        network.deliver(network.tx(network.batch(batch_id="b-2", node_id="")))
        self.assertEqual(network.chain.doubles(), {})
        network.deliver(second)
        hashes = [decode_transaction(raw).hash for raw in (first, second)]
        self.assertEqual(network.chain.doubles(), {"b-1": hashes})
        self.assertEqual([delivered.code for delivered in network.chain.deliveries_of("b-2")], [1145])
        self.assertEqual([delivered.height for delivered in network.chain.ledger], [11, 12, 13])

    def test_nonces_under_two_ids_are_seen(self) -> None:
        network = ChainInMemory()
        network.deliver(network.tx(network.batch(), network.batch(batch_id="b-2", nonces=(8, 9))))
        self.assertEqual(network.state.doubled_nonces(), set())
        network.deliver(network.tx(network.batch(batch_id="b-3", nonces=(9, 10))))
        self.assertEqual(network.state.doubled_nonces(), {(10, network.key.address, 9)})

    def test_old_blocks_are_forgotten_but_not_their_transactions(self) -> None:
        network = ChainInMemory()
        raw = network.tx(network.batch())
        network.deliver(raw)
        network.advance(1200)
        self.assertEqual(len(network.chain.blocks), 1000)
        self.assertIsNotNone(network.chain.find(decode_transaction(raw).hash))


class MethodTests(SynchronousTestCase):
    """The JSON of the calls."""

    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.methods = Methods(self.network.node)

    def error(self, method: str, params: Any) -> RpcError:
        error: RpcError = self.assertRaises(RpcError, self.methods.call, method, params)
        return error

    def query(self, path: str, data: bytes, height: str = "0") -> dict[str, Any]:
        answer = self.methods.call("abci_query", {"path": path, "data": data.hex(), "height": height, "prove": False})
        response: dict[str, Any] = answer["response"]
        return response

    def test_status(self) -> None:
        self.network.advance(12)
        self.network.node.switches.is_catching_up = True
        status = self.methods.call("status", {})
        self.assertEqual(status["node_info"], {"network": CHAIN_ID, "other": {"tx_index": "on"}})
        sync = status["sync_info"]
        self.assertEqual((sync["latest_block_height"], sync["earliest_block_height"]), ("12", "10"))
        self.assertEqual(sync["latest_block_time"], "2023-11-14T22:13:22Z")
        self.assertIs(sync["catching_up"], True)

    def test_times_have_nanoseconds(self) -> None:
        self.assertEqual(format_time(START_NS + 1), "2023-11-14T22:13:20.000000001Z")
        self.assertEqual(format_time(START_NS + 120_000_000), "2023-11-14T22:13:20.12Z")

    def test_broadcast_and_tx(self) -> None:
        raw = self.network.tx(self.network.batch())
        tx_hash = decode_transaction(raw).hash
        by_hash = {"hash": base64.b64encode(bytes.fromhex(tx_hash)).decode(), "prove": False}
        answer = self.methods.call("broadcast_tx_sync", {"tx": base64.b64encode(raw).decode()})
        self.assertEqual((answer["code"], answer["hash"]), (0, tx_hash))
        self.assertEqual(self.error("tx", by_hash).data, f"tx ({tx_hash}) not found")
        self.network.node.switches.index_delay_blocks = 1
        self.network.advance(11)
        self.assertEqual(self.error("tx", by_hash).data, f"tx ({tx_hash}) not found", "indexed later")
        self.network.advance(12)
        found = self.methods.call("tx", by_hash)
        self.assertEqual((found["height"], found["hash"], found["tx_result"]["code"]), ("11", tx_hash, 0))
        self.network.node.switches.is_indexing_off = True
        self.assertEqual(self.error("tx", by_hash).data, "transaction indexing is disabled")

    def test_broadcast_errors_are_in_data(self) -> None:
        self.network.node.switches.is_mempool_full = True
        error = self.error("broadcast_tx_sync", {"tx": ""}).as_json()
        self.assertEqual((error["code"], error["message"]), (-32603, "Internal error"))
        self.assertIn("mempool is full", error["data"])

    def test_block(self) -> None:
        self.network.advance(12)
        block = self.methods.call("block", {"height": "11"})
        self.assertEqual(block["block_id"]["hash"], self.network.chain.blocks[11].hash)
        self.assertRegex(block["block_id"]["hash"], "^[0-9A-F]{64}$")
        self.assertEqual(block["block"]["header"]["height"], "11")
        self.assertEqual(self.methods.call("block", {})["block"]["header"]["height"], "12")
        self.assertIn("must be less than or equal to", self.error("block", {"height": "13"}).data)
        self.assertIn("is not available, lowest height is 10", self.error("block", {"height": "9"}).data)

    def test_the_event(self) -> None:
        event = new_block_event(CHAIN_ID, self.network.chain.latest, "tm.event='NewBlock'")
        self.assertEqual(event["data"]["type"], "tendermint/event/NewBlock")
        self.assertEqual(event["data"]["value"]["block"]["header"]["height"], "10")
        self.assertEqual(event["data"]["value"]["block_id"]["hash"], self.network.chain.latest.hash)

    def test_accounts(self) -> None:
        request = bytes_field(1, self.network.key.address)
        base = request + varint_field(3, 1)
        answer = self.query("/cosmos.auth.v1beta1.Query/AccountInfo", request)
        self.assertEqual((answer["code"], answer["height"]), (0, "10"))
        self.assertEqual(base64.b64decode(answer["value"]), message_field(1, base))
        answer = self.query("/cosmos.auth.v1beta1.Query/Account", request)
        packed = bytes_field(1, "/cosmos.auth.v1beta1.BaseAccount") + bytes_field(2, base)
        self.assertEqual(base64.b64decode(answer["value"]), message_field(1, packed))

    def test_the_key_is_shown_once_it_is_known(self) -> None:
        self.network.deliver(self.network.tx(self.network.batch()))
        answer = self.query("/cosmos.auth.v1beta1.Query/AccountInfo", bytes_field(1, self.network.key.address))
        self.assertIn(self.network.key.public, base64.b64decode(answer["value"]))

    def test_queries_that_fail(self) -> None:
        path = "/cosmos.auth.v1beta1.Query/AccountInfo"
        absent = self.query(path, bytes_field(1, Key(7).address))
        self.assertEqual((absent["code"], absent["value"]), (22, None))
        self.assertIn("key not found", absent["log"])
        self.assertEqual(self.query(path, b"\xff")["code"], 18)
        self.assertEqual(self.query("/cosmos.bank.v1beta1.Query/Balance", b"")["code"], 6)
        self.assertEqual(self.query(path, b"", "11")["code"], 26)

    def test_epoch_info(self) -> None:
        path = "/inference.inference.Query/EpochInfo"
        value = base64.b64decode(self.query(path, b"")["value"])
        latest_epoch = message_field(3, varint_field(1, 1) + varint_field(2, 10))
        self.assertTrue(value.startswith(varint_field(1, 10)))
        self.assertTrue(value.endswith(latest_epoch))
        self.network.advance(41)
        self.network.state.confirmation = ConfirmationEvent(1, 2, 40, 42, "abcdef")

        def event(phase: int) -> bytes:
            fields = ((1, 1), (2, 2), (3, 40), (4, 42), (8, phase))
            encoded = b"".join(varint_field(number, value) for number, value in fields) + bytes_field(9, "abcdef")
            return varint_field(4, 1) + message_field(5, encoded)

        self.assertTrue(base64.b64decode(self.query(path, b"")["value"]).endswith(event(1)))
        self.network.advance(42)
        self.assertTrue(base64.b64decode(self.query(path, b"")["value"]).endswith(event(2)))
        self.network.advance(55)
        self.assertTrue(base64.b64decode(self.query(path, b"")["value"]).endswith(event(3)))
        self.network.advance(60)
        epoch_2 = message_field(3, varint_field(1, 2) + varint_field(2, 50))
        self.assertTrue(base64.b64decode(self.query(path, b"")["value"]).endswith(epoch_2), "completed")

    def test_params_are_read_as_cometbft_does(self) -> None:
        self.assertEqual(self.error("block", {"height": 10}).code, -32602)
        self.assertEqual(self.error("tx", {"hash": "no base64!"}).code, -32602)
        self.assertEqual(self.error("abci_query", {"path": "/x", "data": "xyz"}).code, -32602)
        self.assertEqual(self.error("block", ["10"]).code, -32602)
        self.assertEqual(self.error("no_such_method", {}).code, -32601)
