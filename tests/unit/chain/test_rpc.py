"""Calls to the chain, against stubbed nodes: what is sent, what comes of it, which node is asked."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast, TxResult
from dapi.errors import ChainRefusedError, ChainUnavailableError, ConfigError
from tests.logs import log_of
from tests.unit.chain.chain_nodes import (
    HASH,
    NOT_FOUND,
    RAW,
    Nodes,
    RpcTestCase,
    checked,
    error,
    found,
    looked_up,
    result,
    status,
)


class CallTests(RpcTestCase):
    """What is sent, and what comes of the answer."""

    def test_status(self) -> None:
        answer = self.ask(status(), ChainRpc.status)
        self.assertEqual((answer.chain_id, answer.height, answer.earliest_height), ("gonka-test", 7, 1))
        self.assertEqual(answer.block_time_ns, 1_700_000_060_000_000_001)
        self.assertEqual((answer.catching_up, answer.has_tx_index), (False, True))
        self.assertEqual((answer.block_hash, answer.node), ("AB7", "a:26657"))

    def test_status_without_index(self) -> None:
        self.assertFalse(self.ask(status(tx_index="off"), ChainRpc.status).has_tx_index)

    def test_broadcast(self) -> None:
        nodes = Nodes(a=checked(log="[]"))
        answer = self.successResultOf(self.client(nodes).broadcast_tx_sync(RAW))
        self.assertEqual(nodes.params, {"tx": base64.b64encode(RAW).decode()})
        self.assertIs(answer, Broadcast.ACCEPTED)

    def test_tx(self) -> None:
        nodes = Nodes(a=looked_up(found(5)))
        answer = self.successResultOf(self.client(nodes).lookup_all([HASH]))
        self.assertEqual(answer.results[HASH], TxResult(HASH, 9, 5, "c", "l", b"\0\1"))
        self.assertEqual(nodes.params, {"hash": base64.b64encode(bytes.fromhex(HASH)).decode(), "prove": False})

    def test_what_the_messages_of_a_transaction_answered(self) -> None:
        answer = found(0)
        answer["result"]["tx_result"]["data"] = base64.b64encode(b"answers").decode()
        looked = self.successResultOf(self.client(Nodes(a=looked_up(answer))).lookup_all([HASH])).results
        self.assertEqual(looked[HASH].data, b"answers")

    def test_tx_in_no_block(self) -> None:
        self.assertEqual(self.ask(looked_up(error(NOT_FOUND)), lambda client: client.lookup_all([HASH])).results, {})

    def test_a_missing_method_is_no_missing_transaction(self) -> None:
        answers = looked_up(error("not found", -32601))
        refused = self.refuse(answers, lambda client: client.lookup_all([HASH]), ChainRefusedError)
        self.assertEqual((refused.code, refused.codespace), (-32601, "rpc"))

    def test_lookup_is_answered_by_one_node(self) -> None:
        nodes = Nodes(a={"status": status(8), "tx": error(NOT_FOUND)}, b={"status": status(99), "tx": found()})
        answer = self.successResultOf(self.client(nodes).lookup_all([HASH]))
        self.assertEqual((answer.status.height, answer.results), (8, {}))
        self.assertEqual(nodes.asked, [("a", "status"), ("a", "tx")])

    def test_lookup_moves_on_as_a_whole(self) -> None:
        nodes = Nodes(
            a={"status": status(8), "tx": error("transaction indexing is disabled")},
            b={"status": status(99), "tx": found()},
        )
        answer = self.successResultOf(self.client(nodes).lookup_all([HASH]))
        self.assertEqual((answer.status.height, answer.status.node), (99, "b:26657"))
        self.assertEqual(answer.results[HASH].height, 9)

    def test_abci_query(self) -> None:
        nodes = Nodes(a=result({"response": {"code": 0, "value": "AAE=", "height": "7", "log": ""}}))
        client = self.client(nodes)
        answer = self.successResultOf(client.abci_query("/p", b"\x0a\xff"))
        self.assertEqual((answer.value, answer.height), (b"\x00\x01", 7))
        self.assertEqual(nodes.params, {"path": "/p", "data": "0aff", "height": "0", "prove": False})
        self.successResultOf(client.abci_query("/p", b"", 12))
        self.assertEqual(nodes.params["height"], "12")

    def test_abci_query_without_value(self) -> None:
        answer = result({"response": {"code": 0, "value": None, "height": "7"}})
        self.assertEqual(self.ask(answer, lambda client: client.abci_query("/p", b"")).value, b"")

    def test_abci_query_refused(self) -> None:
        answer = result({"response": {"code": 22, "codespace": "sdk", "log": "key not found", "value": None}})
        refused = self.refuse(answer, lambda client: client.abci_query("/p", b""), ChainRefusedError)
        self.assertEqual((refused.code, refused.codespace, refused.log), (22, "sdk", "key not found"))

    def test_block(self) -> None:
        header = {"chain_id": "c", "height": "12", "time": "2023-11-14T22:14:20Z"}
        nodes = Nodes(a=result({"block_id": {"hash": "ABCD"}, "block": {"header": header}}))
        answer = self.successResultOf(self.client(nodes).block(12))
        self.assertEqual((answer.height, answer.hash, answer.time_ns), (12, "ABCD", 1_700_000_060_000_000_000))
        self.assertEqual(nodes.params, {"height": "12"})

    def test_a_block_to_come(self) -> None:
        answer = error("height 13 must be less than or equal to the current blockchain height 12")
        self.refuse(answer, lambda client: client.block(13), ChainUnavailableError)

    def test_numbers_may_be_strings_or_not(self) -> None:
        answer = status()
        answer["result"]["sync_info"]["latest_block_height"] = 9
        self.assertEqual(self.ask(answer, ChainRpc.status).height, 9)


class FailOverTests(RpcTestCase):
    """Which node is asked."""

    def hosts(self, nodes: Nodes) -> list[str]:
        asked, nodes.asked = nodes.asked, []
        return [host for host, _ in asked]

    def test_the_first_as_long_as_it_answers(self) -> None:
        nodes = Nodes(a=status(), b=status())
        client = self.client(nodes)
        for _ in range(3):
            self.successResultOf(client.status())
        self.assertEqual(self.hosts(nodes), ["a", "a", "a"])

    def test_a_failed_one_comes_last_until_all_are_asked_for_their_status_after_five_seconds(self) -> None:
        nodes = Nodes(a=TCPConnectionRefusedError(), b=status())
        client = self.client(nodes)
        self.assertEqual(self.successResultOf(client.status()).node, "b:26657")
        self.assertEqual(self.hosts(nodes), ["a", "b"])
        nodes.answers["a"] = status()
        self.clock.advance(4.9)
        self.successResultOf(client.ask_all())
        self.successResultOf(client.status())
        self.assertEqual(self.hosts(nodes), ["b", "b"])
        self.clock.advance(0.2)
        self.successResultOf(client.ask_all())
        self.assertEqual(self.successResultOf(client.status()).node, "a:26657")

    def test_when_all_have_failed_all_are_asked_again(self) -> None:
        nodes = Nodes(a=TCPConnectionRefusedError(), b=DNSLookupError())
        client = self.client(nodes)
        failure = self.failureResultOf(client.status(), ChainUnavailableError)
        self.assertIn("a:26657", str(failure.value))
        self.assertIn("b:26657", str(failure.value))
        nodes.answers["b"] = status()
        self.successResultOf(client.status())
        self.assertEqual(self.hosts(nodes), ["a", "b", "a", "b"])

    def test_one_that_catches_up_is_worse_than_one_that_does_not(self) -> None:
        nodes = Nodes(a=status(catching_up=True), b=status(9))
        client = self.client(nodes)
        self.assertEqual(self.successResultOf(client.status()).node, "b:26657")
        self.assertEqual(self.successResultOf(client.status()).node, "b:26657")
        self.assertEqual(self.hosts(nodes), ["a", "b", "b"])

    def test_one_that_catches_up_is_better_than_one_that_fails(self) -> None:
        nodes = Nodes(a=TCPConnectionRefusedError(), b=status(3, catching_up=True))
        client = self.client(nodes)
        self.assertTrue(self.successResultOf(client.status()).catching_up)
        self.hosts(nodes)
        self.assertTrue(self.successResultOf(client.status()).catching_up)
        self.assertEqual(self.hosts(nodes), ["b", "a"])

    def test_one_that_has_not_come_to_a_height_yet_may_lag_behind_the_others(self) -> None:
        future = {"code": 26, "codespace": "sdk", "log": "cannot query with height in the future", "value": None}
        nodes = Nodes(a=result({"response": future}), b=result({"response": {"code": 0, "value": "AAE="}}))
        client = self.client(nodes)
        self.assertEqual(self.successResultOf(client.abci_query("/p", b"", 12)).value, b"\x00\x01")
        nodes.answers["b"] = nodes.answers["a"]
        failure = self.failureResultOf(client.abci_query("/p", b"", 12), ChainUnavailableError)
        self.assertIn("height in the future", str(failure.value))

    def test_a_failure_is_logged_once(self) -> None:
        log = log_of(self)
        client = self.client(Nodes(a=TCPConnectionRefusedError()))
        for _ in range(3):
            self.failureResultOf(client.status(), ChainUnavailableError)
        self.assertEqual(len(log.warnings("chain node a:26657 failed at status")), 1)


class TimeTests(RpcTestCase):
    """Time limits, cancelling, closing."""

    def test_silence_is_given_up_and_the_next_node_asked(self) -> None:
        silent: Deferred[Any] = Deferred(lambda d: d.errback(ConnectingCancelledError(None)))
        nodes = Nodes(a=silent, b=status())
        answer = self.client(nodes, timeout_seconds=10).status()
        self.clock.advance(9.9)
        self.assertNoResult(answer)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(answer).node, "b:26657")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence_of_all(self) -> None:
        answer = self.client(Nodes(a=Deferred())).status()
        self.clock.advance(3)
        self.assertIn("no complete answer within 3 s", str(self.failureResultOf(answer, ChainUnavailableError).value))

    def test_a_cancelled_call_is_not_tried_elsewhere(self) -> None:
        cancelled = ResponseFailed([Failure(CancelledError())])
        # Cancelled while a name is looked up, Twisted tells a failed look-up.
        for error_of_cancel in (CancelledError(), ConnectingCancelledError(None), cancelled, DNSLookupError()):
            silent: Deferred[Any] = Deferred(lambda d, e=error_of_cancel: d.errback(e))  # type: ignore[misc]
            nodes = Nodes(a=silent, b=status())
            answer = self.client(nodes).status()
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.assertEqual([host for host, _ in nodes.asked], ["a"])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_cancels_and_refuses(self) -> None:
        client = self.client(Nodes(a=Deferred()))
        answer = client.status()
        self.successResultOf(client.close())
        self.failureResultOf(answer, CancelledError)
        self.failureResultOf(client.status(), ChainUnavailableError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UrlTests(RpcTestCase):
    """The configured URLs."""

    def test_none_and_wrong_ones(self) -> None:
        self.assertRaises(ConfigError, ChainRpc, self.clock, [])
        for url in ("node:26657", "ftp://node:26657", "http://", "", "http://a:x", "http://a:0", "http://a:65536"):
            self.assertRaises(ConfigError, ChainRpc, self.clock, [url])

    def test_a_password_is_not_echoed(self) -> None:
        refused = self.assertRaises(ConfigError, ChainRpc, self.clock, ["http://user:secret@a:26657"])
        self.assertNotIn("secret", str(refused))

    def test_tcp_means_http_and_a_path_is_kept(self) -> None:
        nodes = Nodes(a=status())
        client = ChainRpc(self.clock, ["tcp://a:26657/chain"], agent=nodes)
        self.assertEqual(self.successResultOf(client.status()).node, "a:26657")
        self.assertEqual(nodes.paths, ["/chain"])

    def test_its_own_agent_connects_to_the_url(self) -> None:
        reactor = MemoryReactorClock()
        answer = ChainRpc(reactor, ["http://127.0.0.1:26657"]).status()
        [(host, port, *_)] = reactor.tcpClients
        self.assertEqual((host, port), ("127.0.0.1", 26657))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(reactor.getDelayedCalls(), [])
