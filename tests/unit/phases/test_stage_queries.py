"""What a stage needs to know of the chain, against the simulated chain's own encoding of the answers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from dapi.chain.answer_reader import ValueReader
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import QueryResult
from dapi.errors import ChainError, ChainRefusedError, ChainUnavailableError
from dapi.phases.stage_queries import PreservedNodes, preserved_nodes, read_batches_of_stage
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.messages import SubmitPocBatch
from dapi.simulator.chain.queries import query
from dapi.simulator.chain.requests import QueryRefused
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.state import Account, ChainState, GroupMember, GroupNode, StoredBatch
from dapi.simulator.chain.wire import bytes_field, message_field, packed_int64_field, varint_field
from tests.chain_tools import Key
from tests.stage_answers import Stored, decode_stage, stored
from tests.unit.chain.chain_nodes import Nodes, RpcTestCase, result
from tests.unit.threadless import ThreadlessReactor

STAGE = 10
LATEST = 30
ONE, TWO, THREE = Key(1), Key(2), Key(3)
BUSY, FREE = (True, True), (True, False)


T = TypeVar("T")


class Decoder(ValueReader[list[Stored]]):
    """Decodes the batches in one go."""

    def __init__(self) -> None:
        self.value = b""

    def feed(self, piece: bytes) -> None:
        self.value += piece

    def finish(self) -> list[Stored]:
        return decode_stage(self.value)


class SimulatedRpc(ChainRpc):
    """Answers as a node of the simulated chain does; ``heights`` and ``requests`` are those that were asked for."""

    def __init__(self) -> None:
        self.state = ChainState("gonka-test", Epochs(STAGE, EpochParams()), Rules())
        self.heights: list[int | None] = []
        self.requests: list[bytes] = []
        # What it answers instead, whatever is asked.
        self.refusal: ChainError | None = None
        self.value: bytes | None = None

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        self.heights.append(height)
        self.requests.append(data)
        if self.refusal is not None:
            return fail(self.refusal)
        if self.value is not None:
            return succeed(QueryResult(self.value, LATEST))
        try:
            value = query(self.state, path, data, height or 0, LATEST)
        except QueryRefused as refused:
            return fail(ChainRefusedError(refused.code, "sdk", str(refused)))
        return succeed(QueryResult(value, height or LATEST))

    def abci_query_in_pieces(
        self, path: str, data: bytes, height: int | None, make_reader: Callable[[], ValueReader[T]], *, max_bytes: int
    ) -> Deferred[T]:
        def read(answer: QueryResult) -> T:
            reader = make_reader()
            reader.feed(answer.value)
            return reader.finish()

        return self.abci_query(path, data, height).addCallback(read)

    def put(
        self, key: Key, batch_id: str, nonces: tuple[int, ...], *, at: int = 12, stage: int = STAGE, **more: Any
    ) -> None:
        self.state.height = at
        self.state.accounts[key.address] = Account(key.address, 1, more.get("public_key", key.public))
        message = SubmitPocBatch(key.address, stage, batch_id, nonces, tuple(nonce / 8 for nonce in nonces), "node1")
        self.state.batches[stage, key.address, batch_id] = StoredBatch(message, at)


class BatchQueryTests(RpcTestCase):
    """PocBatchesForStage."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = ThreadlessReactor()
        self.rpc = SimulatedRpc()

    def ask(self, at_height: int = LATEST) -> list[Stored]:  # type: ignore[override]
        found: list[Stored] = self.successResultOf(self.asking(at_height))
        return found

    def asking(self, at_height: int, rpc: ChainRpc | None = None) -> Deferred[list[Stored]]:
        reading = read_batches_of_stage(rpc or self.rpc, STAGE, at_height, Decoder, max_bytes=1000)
        return Deferred.fromCoroutine(reading)

    def client(self, nodes: Nodes, **settings: Any) -> ChainRpc:
        return ChainRpc(self.reactor, ["http://a:26657"], agent=nodes, **settings)

    def test_batches_of_all_participants(self) -> None:
        self.rpc.put(ONE, "b", (3, 300))
        self.rpc.put(ONE, "a", (2**62, 0))
        self.rpc.put(TWO, "a", (5,))
        self.rpc.put(TWO, "of another stage", (6,), stage=STAGE + 40)
        self.assertCountEqual(
            self.ask(),
            [
                stored(ONE, ([2**62, 0], [2**59, 0]), ([3, 300], [0.375, 37.5])),
                stored(TWO, ([5], [0.625])),
            ],
        )

    def test_no_batches(self) -> None:
        self.assertEqual(self.ask(), [])

    def test_who_never_showed_a_key_is_not_among_them(self) -> None:
        self.rpc.put(ONE, "a", (1,), public_key=None)
        self.assertEqual(self.ask(), [])

    def test_the_state_of_the_height_that_is_asked_for(self) -> None:
        self.rpc.put(ONE, "a", (1,), at=21)
        self.rpc.put(ONE, "in the last block", (2,), at=22)
        self.assertEqual(self.ask(21), [stored(ONE, ([1], [0.125]))])
        self.assertEqual(self.ask(22), [stored(ONE, ([1], [0.125]), ([2], [0.25]))])
        self.assertEqual(self.rpc.heights, [21, 22])

    def test_a_refusal_stays_one(self) -> None:
        self.rpc.refusal = ChainRefusedError(6, "sdk", "unknown query path")
        self.failureResultOf(self.asking(LATEST), ChainRefusedError)

    def test_an_answer_above_the_bound_is_a_clear_error(self) -> None:
        value = base64.b64encode(bytes(1000)).decode()
        nodes = Nodes(a=result({"response": {"code": 0, "value": value, "height": "30"}}))
        rpc = self.client(nodes)
        failure = self.failureResultOf(self.asking(LATEST, rpc), ChainUnavailableError)
        self.assertRegex(str(failure.value), "PocBatchesForStage: .*longer than 1000 bytes")

    def test_a_node_that_cannot_be_reached(self) -> None:
        rpc = self.client(Nodes(a=OSError("no route")))
        failure = self.failureResultOf(self.asking(LATEST, rpc), ChainUnavailableError)
        self.assertIn("no route", str(failure.value))


class PreservedNodesTests(RpcTestCase):
    """EpochGroupData."""

    def setUp(self) -> None:
        super().setUp()
        self.rpc = SimulatedRpc()
        self.groups = self.rpc.state.epoch_groups

    def preserved(self, epoch_index: int, address: str = ONE.address) -> frozenset[str]:
        return self.nodes(epoch_index, address).own

    def nodes(self, epoch_index: int, address: str = ONE.address) -> PreservedNodes:
        asking = Deferred.fromCoroutine(preserved_nodes(self.rpc, epoch_index, address))
        nodes: PreservedNodes = self.successResultOf(asking)
        return nodes

    def test_nodes_of_all_models(self) -> None:
        mine = (GroupNode("a", FREE), GroupNode("b", BUSY))
        self.groups[0, ""] = (GroupMember(ONE.address),)
        self.groups[0, "model-1"] = (GroupMember(TWO.address, (GroupNode("x", BUSY),)), GroupMember(ONE.address, mine))
        self.groups[0, "model-2"] = (GroupMember(ONE.address, (GroupNode("c", BUSY), GroupNode("d"))),)
        self.assertEqual(self.preserved(0), {"b", "c"})
        self.assertEqual(self.preserved(0, TWO.address), {"x"})
        self.assertEqual(self.preserved(0, THREE.address), set())

    def test_of_the_epoch_that_is_asked_for_and_no_node_with_fewer_slots(self) -> None:
        for epoch_index, node in ((0, "a"), (3, "b"), (4, "c")):
            self.groups[epoch_index, ""] = ()
            self.groups[epoch_index, "model-1"] = (
                GroupMember(ONE.address, (GroupNode("short", (True,)), GroupNode("none", ()), GroupNode(node, BUSY))),
            )
        self.assertEqual(self.preserved(3), {"b"})

    def test_those_of_all_others_are_told_too(self) -> None:
        self.groups[0, ""] = (GroupMember(THREE.address, (GroupNode("b", BUSY), GroupNode("c", FREE))),)
        self.groups[0, "model-1"] = (
            GroupMember(TWO.address, (GroupNode("a", BUSY),)),
            GroupMember(ONE.address, (GroupNode("a", BUSY), GroupNode("d", BUSY))),
        )
        self.assertEqual(self.nodes(0), PreservedNodes(own=frozenset("ad"), others=frozenset("ab")))

    def test_all_queries_are_of_one_height(self) -> None:
        self.groups[0, "model-1"] = self.groups[0, "model-2"] = ()
        self.preserved(0)
        self.assertEqual(self.rpc.heights, [None, LATEST, LATEST])

    def test_nodes_of_the_main_group(self) -> None:
        self.groups[0, ""] = (GroupMember(ONE.address, (GroupNode("a", BUSY),)),)
        self.assertEqual(self.preserved(0), {"a"})

    def test_an_epoch_in_preparation_says_nothing_yet(self) -> None:
        self.groups[0, "model-1"] = (GroupMember(ONE.address, (GroupNode("a", BUSY),)),)
        self.assertEqual(self.preserved(1), set())

    def test_an_epoch_without_a_group_preserves_none(self) -> None:
        self.assertEqual(self.preserved(7), set())

    def test_another_participants_id_that_is_no_utf8(self) -> None:
        def member(address: str, node_id: bytes) -> bytes:
            node = message_field(4, bytes_field(1, node_id) + packed_int64_field(4, [0, 1]))
            return message_field(8, bytes_field(1, address) + node)

        self.rpc.value = message_field(
            1, member(TWO.address, b"\xff") + member(ONE.address, b"a") + varint_field(16, 3)
        )
        self.assertEqual(self.preserved(3), {"a"})

    def test_what_fails(self) -> None:
        def ask(rpc: ChainRpc) -> Deferred[Any]:
            return Deferred.fromCoroutine(preserved_nodes(rpc, 3, ONE.address))

        self.rpc.value = b"\xff"
        failure = self.failureResultOf(ask(self.rpc), ChainUnavailableError)
        expected = "/inference.inference.Query/EpochGroupData: the answer is no QueryEpochGroupDataResponse: "
        self.assertTrue(str(failure.value).startswith(expected), failure.value)
        self.rpc.refusal = ChainRefusedError(6, "sdk", "unknown query path")
        self.failureResultOf(ask(self.rpc), ChainRefusedError)
        unreachable = ChainRpc(self.clock, ["http://a:26657"], agent=Nodes(a=OSError("no route")))
        failure = self.failureResultOf(ask(unreachable), ChainUnavailableError)
        self.assertRegex(str(failure.value), "^/inference.inference.Query/EpochGroupData: .*no route")
