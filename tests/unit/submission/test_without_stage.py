"""How a message ends that was never of a stage, and what is said of one that was not of its stage's run."""

from __future__ import annotations

from typing import Any

from dapi.messages import Kind, State, Via
from dapi.outbox.comparison import Comparison
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import OutboxEntry
from tests.logs import log_of
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase

NO_SUCH_STAGE = "not sent: the chain has told of no such stage"
FOREIGN = "not sent: its block hash or public key is not that of the stage"


class WithoutStageTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)

    def begin(self, database: Any) -> None:
        super().begin(database)
        self.recorder = CosmosMessageClient(self.outbox, comparison=Comparison(self.clock, database))

    def stage(self, height: int, run: str = "another") -> None:
        statement = "INSERT OR REPLACE INTO stages (height, stage, node_count, run) VALUES (?, '', 2, ?)"
        self.wait(self.database.write(lambda connection: connection.execute(statement, (height, run))))

    def end(self, height: int, *known: int) -> int:
        number: int = self.wait(self.submissions.end_without_stage(height, known))
        return number

    def test_it_ends_without_its_body(self) -> None:
        batch_id = self.record(1, height=10)
        self.assertEqual(self.end(10), 1)
        row = self.rows()[batch_id]
        self.assertEqual((row.state, row.reason, row.height), (State.EXPIRED, NO_SUCH_STAGE, 10))
        self.assertEqual(self.counts(), {"expired": 1})
        self.assertEqual(self.look("SELECT message FROM finished"), [(None,)])
        self.assertIsNone(self.wait(self.submissions.oldest_received_at()))
        line = "1 messages expired that no PoC stage was for: the chain is at block 10"
        self.assertEqual(self.log.warnings(), [line])
        self.end(11)
        self.assertEqual(len(self.log.warnings()), 1)

    def test_it_is_still_kept_once(self) -> None:
        self.record(1, height=10)
        self.end(10)
        again = self.record(1, height=10)
        self.assertEqual(self.rows()[again].seen, 2)
        self.assertEqual(self.counts(), {"expired": 1})

    def test_stages_in_the_database_and_those_that_the_chain_tells_of_go_on(self) -> None:
        for height in (10, 11, 12):
            self.record(1, height=height)
        self.stage(10)
        self.assertEqual(self.end(12, 11), 1)
        self.assertEqual(self.end(12, 11), 0)
        self.assertEqual(sorted(row.height for row in self.rows().values() if row.state is State.STORED), [10, 11])

    def test_a_hundred_heights_ahead_may_still_be_one(self) -> None:
        for height in (11, 110, 111):
            self.record(1, height=height)
        self.assertEqual(self.end(10), 1)
        self.assertEqual(sorted(row.height for row in self.rows().values() if row.state is State.STORED), [11, 110])

    def test_more_than_a_thousand_end_in_several_steps(self) -> None:
        stored = [
            self.outbox.put(OutboxEntry(f"b{height}", Kind.GENERATED, "node1", height, 1, Via.HTTP, b"message", "run"))
            for height in range(1, 1202)
        ]
        for each in stored:
            self.wait(each)
        self.assertEqual(self.end(2000), 1201)
        self.assertEqual(self.counts(), {"expired": 1201})

    def test_what_is_of_another_run_says_so_when_its_window_has_ended(self) -> None:
        batch_id = self.record(1, height=10)
        self.stage(10)
        self.assertEqual(self.rows()[batch_id].reason, FOREIGN)
        self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended with block 20"))
        reason = f"its window ended with block 20; before: {FOREIGN}"
        self.assertEqual((self.rows()[batch_id].reason, self.rows()[batch_id].state), (reason, State.EXPIRED))

    def test_what_failed_is_compared_when_it_is_sent_once_more(self) -> None:
        batch_id = self.record(1, height=10)
        ((run,),) = self.look("SELECT run FROM unfinished")
        self.stage(10, run)
        self.wait(self.submissions.fail(self.send(self.next(height=11)), HASH, "no"))
        self.wait(self.outbox.retry(batch_id))
        self.stage(10)
        self.assertEqual((self.rows()[batch_id].state, self.rows()[batch_id].reason), (State.STORED, FOREIGN))
        self.assertEqual(self.next(height=12), [])
        self.stage(10, run)
        self.assertEqual(len(self.next(height=12)), 1)
