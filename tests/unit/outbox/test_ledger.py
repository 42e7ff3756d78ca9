"""The ledger of a stage tells what became of each node's work in it."""

import json

from dapi.messages import Kind, State, Via
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox import queries
from dapi.outbox.ledger import NodeLedger, stage_ledger
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.submission.choice import Room
from dapi.submission.submissions import Submissions
from tests.submissions import choose, put_in_flight
from tests.unit.database.store_tools import StoreTestCase

NO_NODE = ""


class LedgerTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.outbox = Outbox(self.clock, self.database, now=self.clock.seconds)
        self.submissions = Submissions(self.database, self.outbox, now=self.clock.seconds)

    def put(self, batch_id: str, *, node_id: str | None = "a", kind: Kind = Kind.GENERATED, height: int = 100) -> None:
        self.clock.wait_for(self.outbox.put(OutboxEntry(batch_id, kind, node_id, height, 5, Via.HTTP, b"\x10\x01")))

    def count_finished(self, seqs: list[int]) -> None:
        values = {"seqs": json.dumps(seqs)}
        count = self.database.write(lambda connection: connection.execute(queries.COUNT_FINISHED, values).fetchall())
        self.clock.wait_for(count)

    def ledger(self) -> dict[str, NodeLedger]:
        return self.clock.wait_for(stage_ledger(self.database, 100))

    def test_by_node_kind_and_state(self) -> None:
        self.put("1")
        self.put("2")
        self.put("2")
        self.put("3", node_id="b")
        self.put("4", node_id=None, kind=Kind.VALIDATED)
        self.put("5", height=140)
        first, second = self.clock.wait_for(choose(self.submissions, 101, Room(10**6, 10**4)))[:2]
        self.clock.wait_for(put_in_flight(self.submissions, [first, second], "AB", 1, 101))
        self.clock.wait_for(self.submissions.confirm([first], "AB", 101))
        self.assertEqual(
            self.ledger(),
            {
                NO_NODE: NodeLedger(validated=1),
                "a": NodeLedger(generated=2, nonces=10, doubled=1, in_flight=1, confirmed=1),
                "b": NodeLedger(generated=1, nonces=5, stored=1),
            },
        )

    def test_a_batch_that_is_sent_in_parts_is_one(self) -> None:
        message = MsgSubmitPocBatch(poc_stage_start_block_height=100, nonces=range(5), dist=[0.5] * 5)
        entry = OutboxEntry("1", Kind.GENERATED, "a", 100, 5, Via.HTTP, message.SerializeToString())
        self.clock.wait_for(self.outbox.put(entry))
        self.assertEqual(len(self.clock.wait_for(choose(self.submissions, 101, Room(10**6, 2)))), 3)
        self.assertEqual(self.ledger(), {"a": NodeLedger(generated=1, nonces=5, in_flight=1)})

    def test_every_state_has_its_count_and_verdicts_and_seeds_have_none_of_them(self) -> None:
        for state in State:
            for number, kind in enumerate((Kind.GENERATED, Kind.VALIDATED, Kind.SEED)):
                for again in range(number + 1):
                    self.put(f"{state}-{kind}-{again}", node_id=None if kind is Kind.SEED else "a", kind=kind)
        columns = (
            "seq, batch_id, kind, node_id, via, height, nonces, seen, received_at, last_seen_at, attempts, message"
        )
        for state in State:
            if state in (State.STORED, State.IN_FLIGHT):
                self.execute(self.database, f"UPDATE unfinished SET state = '{state}' WHERE batch_id LIKE '{state}-%'")
                continue
            self.execute(
                self.database,
                f"INSERT INTO finished (state, finished_at, {columns}) SELECT '{state}', 0, {columns} FROM unfinished"
                f" WHERE batch_id LIKE '{state}-%'",
            )
            seqs = self.execute(self.database, f"DELETE FROM unfinished WHERE batch_id LIKE '{state}-%' RETURNING seq")
            self.count_finished([seq for (seq,) in seqs])
        self.assertEqual(
            self.ledger(),
            {
                NO_NODE: NodeLedger(),
                "a": NodeLedger(
                    generated=5,
                    nonces=25,
                    stored=1,
                    in_flight=1,
                    confirmed=1,
                    failed=1,
                    expired=1,
                    validated=10,
                ),
            },
        )

    def test_what_expired_is_told(self) -> None:
        self.put("1")
        self.put("2", height=140)
        self.assertEqual(
            self.clock.wait_for(self.submissions.stages_unfinished(0)),
            [(100, Kind.GENERATED, State.STORED), (140, Kind.GENERATED, State.STORED)],
        )
        self.assertEqual(self.clock.wait_for(self.submissions.expire(100, Kind.GENERATED, "too late")), 1)
        self.assertEqual(self.ledger(), {"a": NodeLedger(generated=1, nonces=5, expired=1)})
        self.assertEqual(
            self.clock.wait_for(self.submissions.stages_unfinished(0)), [(140, Kind.GENERATED, State.STORED)]
        )
        counts = self.clock.wait_for(self.outbox.counts())
        self.assertEqual((counts["expired"], counts["stored"]), (1, 1))
