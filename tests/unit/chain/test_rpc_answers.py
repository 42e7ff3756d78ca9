"""How the answers of the chain's nodes are sorted and read."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast
from dapi.errors import (
    ChainPrunedError,
    ChainRefusedError,
    ChainStaleError,
    ChainUnavailableError,
    MempoolFullError,
)
from tests.unit.chain.chain_nodes import (
    HASH,
    RAW,
    Answer,
    Nodes,
    RpcTestCase,
    broadcast,
    checked,
    error,
    found,
    looked_up,
    result,
    status,
)


class BroadcastTests(RpcTestCase):
    """Every answer to a broadcast is one of: it is there, unknown, sign anew, never, later."""

    def test_already_there(self) -> None:
        for answer in (error("tx already exists in cache"), checked(19, "sdk", "tx already in mempool")):
            self.assertIs(self.ask(answer, broadcast), Broadcast.ALREADY_THERE)

    def test_unknown(self) -> None:
        answer = error("broadcast confirmation not received: context deadline exceeded")
        self.assertIs(self.ask(answer, broadcast), Broadcast.UNKNOWN)

    def test_later(self) -> None:
        rechecking = "mempool is still rechecking after a new committed block, so it is considered as full"
        for answer in (
            error("mempool is full: number of txs 5000 (max: 5000), total txs bytes 1 (max: 2)"),
            error(rechecking),
            checked(20, "sdk", "mempool is full"),
        ):
            self.refuse(answer, broadcast, MempoolFullError)
        self.refuse(error("something unheard of"), broadcast, ChainUnavailableError)

    def test_sign_anew(self) -> None:
        for code, log in (
            (42, "tx timeout"),
            (30, "timeout height"),
            (32, "account sequence mismatch"),
            (18, "unordered tx ttl exceeds 10m0s: invalid request"),
            (18, "unordered transaction has a timeout_timestamp that has already passed: invalid request"),
            (18, "failed to add unordered nonce: already used timeout 5 for address"),
        ):
            stale = self.refuse(checked(code, "sdk", log), broadcast, ChainStaleError)
            self.assertEqual((stale.code, stale.codespace, stale.log), (code, "sdk", log))

    def test_never(self) -> None:
        for code, codespace, log in (
            (18, "sdk", "nonces must not be empty: invalid request"),
            (4, "sdk", "signature verification failed"),
            (9, "sdk", "unknown address"),
            (1107, "inference", "wrong start"),
            (1108, "inference", "too late"),
            (20, "inference", "not the SDK's 20"),
        ):
            refused = self.refuse(checked(code, codespace, log), broadcast, ChainRefusedError)
            self.assertEqual((refused.code, refused.codespace), (code, codespace))

    def test_too_large(self) -> None:
        for answer in (
            error("Tx too large. Max size is 1048576, but got 1048577"),
            Answer(error("error reading request body: http: request body too large", -32600), 400),
            Answer(b"<html>Request Entity Too Large</html>", 413),
        ):
            self.assertEqual(self.refuse(answer, broadcast, ChainRefusedError).code, 21)

    def test_a_refusal_names_its_node(self) -> None:
        for answer, kind in (
            (checked(13, "sdk", "insufficient fees"), ChainRefusedError),
            (checked(42, "sdk", "tx timeout"), ChainStaleError),
        ):
            self.assertEqual(self.refuse(answer, broadcast, kind).node, "a:26657")

    def test_poc_v2(self) -> None:
        answer = Answer(b"V1 endpoints disabled when poc_v2_enabled=true", 503)
        refused = self.refuse(answer, broadcast, ChainRefusedError)
        self.assertEqual((refused.code, refused.codespace), (1161, "inference"))

    def test_a_log_that_quotes_a_whole_message_is_cut_in_its_middle(self) -> None:
        begin = "failed to execute message; message index: 0: failed to execute message; message creator:"
        end = " node_id:: PoC node id is empty"
        log = begin + " ".join(f"nonces:{nonce} dist:0.5" for nonce in range(10_000)) + end
        in_block = self.ask(looked_up(found(1145, log)), lambda client: client.lookup_all([HASH])).results[HASH].log
        by_mempool = self.refuse(checked(1145, "inference", log), broadcast, ChainRefusedError).log
        for words in (in_block, by_mempool):
            self.assertLess(len(words), 1500)
            self.assertIn(begin, words)
            self.assertTrue(words.endswith(end))

    def test_what_never_heals_is_asked_of_one_node_only(self) -> None:
        nodes = Nodes(a=checked(4, "sdk", "unauthorized"), b=checked())
        self.failureResultOf(self.client(nodes).broadcast_tx_sync(RAW), ChainRefusedError)
        self.assertEqual([host for host, _ in nodes.asked], ["a"])

    def test_a_full_mempool_is_not_every_mempool(self) -> None:
        full = error("mempool is full: number of txs 5000")
        nodes = Nodes(a=full, b=checked())
        self.assertIs(self.successResultOf(self.client(nodes).broadcast_tx_sync(RAW)), Broadcast.ACCEPTED)
        nodes.answers["b"] = full
        self.failureResultOf(self.client(nodes).broadcast_tx_sync(RAW), MempoolFullError)
        nodes.answers["b"] = error("something unheard of")
        failed = self.failureResultOf(self.client(nodes).broadcast_tx_sync(RAW), ChainUnavailableError)
        self.assertIs(failed.type, ChainUnavailableError)


class StateTests(RpcTestCase):
    """Heights that a node does not have: not yet, or not any more."""

    def query(self, code: int, log: str) -> Any:
        return result({"response": {"code": code, "codespace": "sdk", "log": log, "value": None}})

    def test_not_yet(self) -> None:
        for answer in (
            self.query(26, "cannot query with height in the future; please provide a valid height: invalid height"),
            self.query(18, "inference is not ready; please wait for first block: invalid request"),
        ):
            self.refuse(answer, lambda client: client.abci_query("/p", b"", 12), ChainUnavailableError)
        future = error("height 12 must be less than or equal to the current blockchain height 9")
        self.refuse(future, lambda client: client.block(12), ChainUnavailableError)

    def test_not_any_more(self) -> None:
        pruned = self.query(38, "failed to load state at height 12; version does not exist (latest height: 99)")
        self.refuse(pruned, lambda client: client.abci_query("/p", b"", 12), ChainPrunedError)
        answer = error("height 12 is not available, lowest height is 50")
        self.assertEqual(self.refuse(answer, lambda client: client.block(12), ChainPrunedError).lowest, 50)
        for text in ("could not find results for height #12", "node is not persisting finalize block responses"):
            self.refuse(error(text), lambda client: client.block_results(12, {}), ChainPrunedError)

    def test_what_is_not_there_at_all_is_refused(self) -> None:
        missing = self.query(38, "account gonka1 not found")
        self.refuse(missing, lambda client: client.abci_query("/p", b""), ChainRefusedError)

    def test_another_node_may_have_it_still(self) -> None:
        header = {"chain_id": "c", "height": "12", "time": "2023-11-14T22:14:20Z"}
        has_it = result({"block_id": {"hash": "ABCD"}, "block": {"header": header}})
        pruned = error("height 12 is not available, lowest height is 50")
        nodes = Nodes(a=pruned, b=has_it)
        self.assertEqual(self.successResultOf(self.client(nodes).block(12)).hash, "ABCD")
        nodes = Nodes(a=pruned, b=error("height 12 is not available, lowest height is 20"), c=error("later"))
        failed = self.failureResultOf(self.client(nodes).block(12), ChainPrunedError).value
        self.assertEqual(failed.lowest, 20)
        self.assertIn("c:26657: later", str(failed))


class BrokenAnswerTests(RpcTestCase):
    """Whatever is not the documented answer is a node that cannot be used now."""

    def test_bodies(self) -> None:
        for body in (
            b"",
            b"junk",
            b"\xff",
            b"[]",
            b"{}",
            b'{"id":1,"result":null}',
            b'{"id":1,"result":{"node_info":{}}}',
            b'{"id":1,"result":{"node_info":{"network":"n"},"sync_info":{"latest_block_height":"x"}}}',
            json.dumps({"id": 2, **status()}).encode(),
        ):
            self.refuse(Answer(body), ChainRpc.status, ChainUnavailableError)

    def test_a_time_that_is_none(self) -> None:
        answer = status()
        answer["result"]["sync_info"]["latest_block_time"] = "yesterday"
        self.refuse(answer, ChainRpc.status, ChainUnavailableError)

    def test_numbers_that_no_chain_has_and_no_database_keeps(self) -> None:
        for name, told in (
            *(("latest_block_height", told) for told in ("-1", str(2**63), "9" * 20, 2**63)),
            ("earliest_block_height", "9" * 20),
            *(("latest_block_time", f"{year}-01-01T00:00:00Z") for year in ("0001", "1969", "2263", "9999")),
        ):
            answer = status()
            answer["result"]["sync_info"][name] = told
            self.refuse(answer, ChainRpc.status, ChainUnavailableError)
        self.refuse(
            result({"response": {"height": "9" * 20}}), lambda it: it.abci_query("/p", b""), ChainUnavailableError
        )

    def test_no_text_of_a_node_breaks_a_line_or_has_no_end(self) -> None:
        evil = "a\x1b[31m\nb" + "c" * 5000

        def query(client: ChainRpc) -> Any:
            return client.abci_query("/p", b"")

        for answer, ask, kind in (
            (error(evil), ChainRpc.status, ChainUnavailableError),
            (Answer(evil.encode(), 502), ChainRpc.status, ChainUnavailableError),
            ({"id": evil, **result({})}, ChainRpc.status, ChainUnavailableError),
            (checked(5, evil, evil), broadcast, ChainRefusedError),
            (result({"response": {"code": 5, "codespace": evil, "log": evil}}), query, ChainRefusedError),
            (result({"response": {"code": 26, "codespace": "sdk", "log": evil}}), query, ChainUnavailableError),
        ):
            text = str(self.refuse(answer, ask, kind))
            self.assertTrue(text.isprintable(), text)
            self.assertLess(len(text), 2500)

    def test_a_node_without_any_block_tells_the_year_1(self) -> None:
        answer = status(0)
        answer["result"]["sync_info"]["latest_block_time"] = "0001-01-01T00:00:00Z"
        self.assertEqual(self.ask(answer, ChainRpc.status).height, 0)

    def test_http_status(self) -> None:
        for code in (302, 400, 401, 404, 500, 502, 503):
            failure = self.refuse(Answer(b"no", code), ChainRpc.status, ChainUnavailableError)
            self.assertIn(f"HTTP {code}: no", str(failure))

    def test_connections(self) -> None:
        lost = Failure(TCPConnectionRefusedError())
        for failing in (
            TCPConnectionRefusedError(),
            DNSLookupError(),
            OSError("no route"),
            ResponseNeverReceived([lost]),
            ResponseFailed([lost]),
        ):
            failure = self.refuse(failing, ChainRpc.status, ChainUnavailableError)
            self.assertIn("a:26657", str(failure))

    def test_an_answer_that_is_too_long(self) -> None:
        response = result({"response": {"code": 0, "value": "A" * 4000, "height": "1"}})
        self.ask(response, lambda client: client.abci_query("/p", b"", max_bytes=5000))
        self.refuse(response, lambda client: client.abci_query("/p", b"", max_bytes=3999), ChainUnavailableError)

    def test_a_defect_of_ours_is_not_hidden(self) -> None:
        client = self.client(Nodes(a=ZeroDivisionError()))
        self.failureResultOf(client.status(), ZeroDivisionError)
