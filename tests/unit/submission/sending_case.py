"""What the steps of sending share, with a chain that answers at once, on a real database."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from bench.heads import Heads
from dapi.chain.keyring import SigningKey
from dapi.messages import Kind, Via
from dapi.outbox.outbox import OutboxEntry
from dapi.phases.poc_version import PocVersion
from dapi.submission.decisions import Decisions
from dapi.submission.in_flight import InFlight
from dapi.submission.pace import Pace
from dapi.submission.problems import Problems
from dapi.submission.rows import TransactionInFlight
from dapi.submission.settings import SubmitterSettings
from dapi.submission.signing import Signing
from dapi.submission.state import SendingState
from tests.logs import log_of
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase
from tests.unit.submission.submitter_case import FakeRpc, status_at

T = TypeVar("T")

# The latest block.
LATEST = 14
# Bytes of each transaction.
SIZE = 60_000


class SendingTestCase(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)
        self.chain = FakeRpc(self.clock)
        self.watcher = Heads(status_at(LATEST))
        key = SigningKey(b"\1" * 32)
        self.settings = SubmitterSettings()
        self.pace = Pace(self.settings)
        self.poc_version = PocVersion(self.chain)
        self.problems = Problems(key.address, key.address, self.poc_version)
        self.signing = Signing(self.chain, key, key.address)
        self.removed: list[str] = []
        self.in_flight = InFlight(lambda: self.removed.append("x"))
        self.state = SendingState(self.signing, self.pace, self.problems, self.in_flight)
        self.decisions = Decisions(self.submissions, self.chain, self.watcher, self.state)

    def sent(self, number: int = 1, tx_hash: str = HASH) -> TransactionInFlight:
        """Record batches, and put them in flight in one transaction."""
        for nonce in range(number):
            self.record(nonce)
        return self.send_next(tx_hash)

    def send_next(self, tx_hash: str = HASH) -> TransactionInFlight:
        """Put what is to be sent next in flight in one transaction."""
        messages = self.send(self.next(height=LATEST), tx_hash)
        transaction = TransactionInFlight(tx_hash, 7, messages, 11, SIZE, account_number=7)
        self.in_flight.add(transaction)
        return transaction

    def put(self, kind: Kind, number: int) -> None:
        """Record an own message."""
        self.wait(self.outbox.put(OutboxEntry(f"{kind}-{number}", kind, None, 10, 1, Via.OWN, b"\x10\1")))

    def run_to_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self.wait(Deferred.fromCoroutine(coroutine))
        return result

    def stored(self) -> list[tuple[Any, ...]]:
        """Of each message that is stored: its reason, its first block, with how many it may go, its attempts."""
        rows = "SELECT reason, not_before, max_messages, attempts FROM unfinished WHERE state = 'stored' ORDER BY seq"
        return self.look(rows)

    def assert_decided(self, transaction: TransactionInFlight, outcome: str, code: str) -> None:
        """It is in flight no more, which was told, and was counted once."""
        self.assertNotIn(transaction, self.in_flight)
        self.assertEqual((self.in_flight.size, self.removed), (0, ["x"]))
        self.assertEqual(self.decisions.outcomes, {(outcome, code): 1})
