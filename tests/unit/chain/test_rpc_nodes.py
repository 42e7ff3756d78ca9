"""Calls to several nodes: who is offered a transaction, how all are asked for their status, who is given up when."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast
from dapi.errors import ChainRefusedError, ChainUnavailableError
from tests.unit.chain.chain_nodes import (
    RAW,
    Answer,
    Nodes,
    RpcTestCase,
    broadcast,
    checked,
    error,
    result,
    status,
)


class BroadcastAtSeveralTests(RpcTestCase):
    """A refusal is proof only of the node that was asked first."""

    def test_a_refusal_after_a_lost_answer_proves_nothing(self) -> None:
        nodes = Nodes(a=ResponseFailed([Failure(ConnectionLost())]), b=checked(4, "sdk", "unauthorized"))
        lost = self.failureResultOf(broadcast(self.client(nodes)), ChainUnavailableError)
        self.assertIn("unauthorized", str(lost.value))
        self.assertEqual([host for host, _ in nodes.asked], ["a", "b"])

    def test_nor_does_one_by_http_status(self) -> None:
        lost = ResponseFailed([Failure(ConnectionLost())])
        for status_code, body in ((413, b"Request Entity Too Large"), (503, b"poc_v2_enabled=true")):
            nodes = Nodes(a=lost, b=Answer(body, status_code))
            failure = self.failureResultOf(broadcast(self.client(nodes)), ChainUnavailableError)
            self.assertIn(body.decode(), str(failure.value))

    def test_a_refusal_of_the_first_does(self) -> None:
        nodes = Nodes(a=checked(4, "sdk", "unauthorized"), b=checked())
        self.failureResultOf(broadcast(self.client(nodes)), ChainRefusedError)
        self.assertEqual([host for host, _ in nodes.asked], ["a"])

    def test_so_does_one_after_a_full_mempool_which_has_not_taken_it(self) -> None:
        full, large = error("mempool is full: number of txs 5000"), error("Tx too large. Max size is 9, but got 13")
        nodes = Nodes(a=full, b=full, c=large)
        refused = self.failureResultOf(broadcast(self.client(nodes)), ChainRefusedError).value
        self.assertEqual((refused.node, refused.code), ("c:26657", 21))
        nodes.answers["b"] = ResponseFailed([Failure(ConnectionLost())])
        self.failureResultOf(broadcast(self.client(nodes)), ChainUnavailableError)

    def test_who_offers_again_offers_to_the_next_sound_node(self) -> None:
        nodes = Nodes(a=checked(), b=checked(), c=TCPConnectionRefusedError(), d=checked())
        client = self.client(nodes)
        client.nodes.call_failed(client.nodes[2], "status", "refused")
        for turn in range(4):
            self.successResultOf(client.broadcast_tx_sync(RAW, turn=turn))
        self.assertEqual([host for host, _ in nodes.asked], ["a", "b", "d", "a"])

    def test_in_its_turn_too_a_node_that_fails_is_passed_over(self) -> None:
        nodes = Nodes(a=checked(), b=TCPConnectionRefusedError())
        self.successResultOf(self.client(nodes).broadcast_tx_sync(RAW, turn=1))
        self.assertEqual([host for host, _ in nodes.asked], ["b", "a"])

    def test_the_others_can_be_asked_after_a_refusal(self) -> None:
        nodes = Nodes(a=checked(13, "sdk", "insufficient fees"), b=checked(), c=TCPConnectionRefusedError())
        client = self.client(nodes)
        refused = self.failureResultOf(broadcast(client), ChainRefusedError).value
        self.assertEqual((refused.node, refused.code), ("a:26657", 13))
        others = [name for name in client.usable_nodes() if name != refused.node]
        self.assertEqual(others, ["b:26657", "c:26657"])
        nodes.asked.clear()
        self.assertIs(self.successResultOf(client.broadcast_to("b:26657", RAW)), Broadcast.ACCEPTED)
        self.failureResultOf(client.broadcast_to("c:26657", RAW), ChainUnavailableError)
        refused = self.failureResultOf(client.broadcast_to("a:26657", RAW), ChainRefusedError).value
        self.assertEqual(refused.node, "a:26657")
        self.assertEqual([host for host, _ in nodes.asked], ["b", "c", "a"])
        self.assertEqual(client.usable_nodes(), ["a:26657", "b:26657"])
        self.failureResultOf(client.broadcast_to("nobody:1", RAW), ChainUnavailableError)


class AskAllTests(RpcTestCase):
    """All nodes are asked at once, and are judged by what they tell."""

    def standings(self, client: ChainRpc) -> list[str]:
        return [str(node["standing"]) for node in client.nodes.status()]

    def test_a_node_that_stands_still_is_left_for_one_that_goes_on(self) -> None:
        nodes = Nodes(a=status(10), b=status(10))
        client = self.client(nodes)
        self.successResultOf(client.ask_all())
        nodes.answers["b"] = status(13)
        self.successResultOf(client.ask_all())
        self.assertEqual(self.standings(client), ["sound", "sound"])
        self.successResultOf(client.ask_all())
        self.assertEqual(self.standings(client), ["behind", "sound"])
        self.assertEqual(self.successResultOf(client.status()).node, "b:26657")
        nodes.answers["a"] = status(13)
        self.successResultOf(client.ask_all())
        self.assertEqual(self.successResultOf(client.status()).node, "a:26657")

    def test_a_frozen_node_delays_nobody_and_is_given_up_after_three_seconds(self) -> None:
        nodes = Nodes(a=status(10), b=status(10))
        client = self.client(nodes)
        self.successResultOf(client.ask_all())
        nodes.answers.update(a=Deferred(), b=status(11))
        asked = client.ask_all()
        assert client.nodes.latest is not None
        self.assertEqual(client.nodes.latest.height, 11)
        self.assertNoResult(asked)
        self.clock.advance(3)
        self.successResultOf(asked)
        self.assertEqual(self.standings(client), ["failing", "sound"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_first_url_that_answers_decides_which_chain_it_is(self) -> None:
        nodes = Nodes(a=status(), b=status(network="other"), c=status())
        nodes.held["a"] = []
        client = self.client(nodes)
        asked = client.ask_all()
        self.assertIsNone(client.nodes.latest)
        nodes.release("a")
        self.successResultOf(asked)
        self.assertEqual(self.standings(client), ["sound", "other_chain", "sound"])
        nodes.asked.clear()
        for node in ("a", "c"):
            nodes.answers[node] = TCPConnectionRefusedError()
        failure = self.failureResultOf(client.status(), ChainUnavailableError)
        self.assertNotIn("b:26657", str(failure.value))
        self.assertEqual([host for host, _ in nodes.asked], ["a", "c"])

    def test_a_chain_that_began_anew_is_another_one(self) -> None:
        nodes = Nodes(a=status(10))
        client = self.client(nodes)
        self.successResultOf(client.ask_all())
        nodes.answers["a"] = status(2, seconds=30)
        self.successResultOf(client.ask_all())
        self.assertIn("it began anew", str(client.nodes.problem()))
        self.failureResultOf(client.status(), ChainUnavailableError)
        self.failureResultOf(broadcast(client), ChainUnavailableError)

    def test_nobody_answers(self) -> None:
        nodes = Nodes(a=TCPConnectionRefusedError(), b=Answer(b"junk"))
        failure = self.failureResultOf(self.client(nodes).ask_all(), ChainUnavailableError)
        self.assertIn("a:26657: ", str(failure.value))
        self.assertIn("; b:26657: an answer that cannot be read", str(failure.value))

    def test_a_refusal_counts_when_no_other_answers(self) -> None:
        nodes = Nodes(a=Answer(b"poc_v2_enabled=true", 503), b=TCPConnectionRefusedError())
        client = self.client(nodes)
        self.failureResultOf(client.ask_all(), ChainRefusedError)
        nodes.answers["b"] = status()
        self.successResultOf(client.ask_all())
        self.assertEqual(self.standings(client), ["failing", "sound"])

    def test_a_cancel_ends_all_its_calls(self) -> None:
        client = self.client(Nodes(a=Deferred(), b=Deferred()))
        asked = client.ask_all()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SlowCallTests(RpcTestCase):
    """A node that is late with a call is not a node that fails, unless the call is its status."""

    def test_a_query_moves_on_after_three_seconds(self) -> None:
        nodes = Nodes(a=Deferred(), b=result({"response": {"code": 0, "value": "AAE="}}))
        client = self.client(nodes)
        query = client.abci_query("/p", b"")
        self.clock.advance(2.9)
        self.assertNoResult(query)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(query).value, b"\0\1")
        self.assertEqual(client.usable_nodes(), ["a:26657", "b:26657"])

    def test_what_carries_transactions_has_ten_seconds(self) -> None:
        for call in (
            broadcast,
            lambda client: client.block(1),
            lambda client: client.block_transactions(1),
            lambda client: client.block_results(1, {}),
        ):
            client = self.client(Nodes(a=Deferred()))
            answer = call(client)
            self.clock.advance(9.9)
            self.assertNoResult(answer)
            self.clock.advance(0.2)
            self.failureResultOf(answer, ChainUnavailableError)
            self.assertEqual(client.usable_nodes(), ["a:26657"])

    def test_a_client_of_the_same_nodes_may_have_other_limits(self) -> None:
        client = self.client(Nodes(a=status(), b=status()))
        client.nodes.call_failed(client.nodes[0], "status", "refused")
        silent = Nodes(b=Deferred())
        patient = ChainRpc(self.clock, client.nodes, agent=silent, timeout_seconds=60)
        answer = patient.abci_query("/p", b"")
        self.clock.advance(59)
        self.assertNoResult(answer)
        self.assertEqual([host for host, _ in silent.asked], ["b"])
        self.successResultOf(patient.close())
        self.failureResultOf(answer, CancelledError)
