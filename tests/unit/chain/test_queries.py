"""What is asked of the chain about accounts and blocks."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError

from dapi.chain.numbers import parse_time_ns
from dapi.chain.queries import contradiction_to
from dapi.chain.rpc_answers import BlockInfo
from dapi.errors import ChainPrunedError, ChainUnavailableError
from tests.unit.chain.chain_nodes import Nodes, RpcTestCase, error, result, status

# Node a stands at height 7, at second 20.
KNOWN = BlockInfo("gonka-test", 5, parse_time_ns("2023-11-14T22:14:15Z"), "AB5")


class ContradictionTests(RpcTestCase):
    """A block that was known before a restart is compared with the chain."""

    def compare(self, known: BlockInfo, block: Any = None, **state: Any) -> Deferred[str | None]:
        header = {"chain_id": "gonka-test", "height": "5", "time": "2023-11-14T22:14:15Z"}
        answer = block or result({"block_id": {"hash": "AB5"}, "block": {"header": header}})
        client = self.client(Nodes(a={"status": status(**state), "block": answer}))
        return Deferred.fromCoroutine(contradiction_to(client, known))

    def changed(self, **changes: Any) -> BlockInfo:
        values = {"chain_id": KNOWN.chain_id, "height": KNOWN.height, "time_ns": KNOWN.time_ns, "hash": KNOWN.hash}
        return BlockInfo(**{**values, **changes})

    def test_the_same_chain(self) -> None:
        self.assertIsNone(self.successResultOf(self.compare(KNOWN)))
        latest = self.changed(height=7, time_ns=parse_time_ns("2023-11-14T22:14:20Z"), hash="AB7")
        self.assertIsNone(self.successResultOf(self.compare(latest, error("not asked for"))))

    def test_another_chain(self) -> None:
        for known, words in (
            (self.changed(chain_id="other"), "its chain id is gonka-test, not other"),
            (self.changed(hash="CD"), "its block 5 has the hash AB5, not CD"),
            (self.changed(height=90), "it began anew"),
            (self.changed(height=7, hash="CD"), "its block 7 has the hash AB7, not CD"),
        ):
            self.assertIn(words, str(self.successResultOf(self.compare(known))))

    def test_not_to_be_told_now(self) -> None:
        ahead = self.changed(height=90, time_ns=parse_time_ns("2023-11-14T22:15:00Z"))
        failure = self.failureResultOf(self.compare(ahead), ChainUnavailableError)
        self.assertEqual(str(failure.value), "the chain is at block 7, and was at 90 before")
        client = self.client(Nodes(a=TCPConnectionRefusedError()))
        asked = Deferred.fromCoroutine(contradiction_to(client, KNOWN))
        self.failureResultOf(asked, ChainUnavailableError)

    def test_not_to_be_told_any_more(self) -> None:
        pruned = error("height 5 is not available, lowest height is 6")
        self.failureResultOf(self.compare(KNOWN, pruned), ChainPrunedError)
