"""The ledger of a stage tells what became of each node's work in it."""

from dapi.messages import Kind, State, Via
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox.ledger import LedgerLine, NodeLedger, by_node, stage_ledger
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.submission.submissions import Submissions
from tests.unit.database.store_tools import StoreTestCase


class LedgerTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.outbox = Outbox(self.clock, self.database, now=self.clock.seconds)
        self.submissions = Submissions(self.database, self.outbox, now=self.clock.seconds)

    def put(self, batch_id: str, *, node_id: str | None = "a", kind: Kind = Kind.GENERATED, height: int = 100) -> None:
        self.clock.wait_for(self.outbox.put(OutboxEntry(batch_id, kind, node_id, height, 5, Via.HTTP, b"\x10\x01")))

    def test_lines_by_node_kind_and_state(self) -> None:
        self.put("1")
        self.put("2")
        self.put("2")
        self.put("3", node_id="b")
        self.put("4", node_id=None, kind=Kind.VALIDATED)
        self.put("5", height=140)
        first, second = self.clock.wait_for(self.submissions.next_messages(101, 10**6, 10**4))[:2]
        self.clock.wait_for(self.submissions.put_in_flight([first, second], "AB", 1))
        self.clock.wait_for(self.submissions.confirm([first], "AB", 101))
        self.assertEqual(
            self.clock.wait_for(stage_ledger(self.database, 100)),
            [
                LedgerLine(None, Kind.VALIDATED, State.STORED, 1, 5, 1),
                LedgerLine("a", Kind.GENERATED, State.CONFIRMED, 1, 5, 1),
                LedgerLine("a", Kind.GENERATED, State.IN_FLIGHT, 1, 5, 2),
                LedgerLine("b", Kind.GENERATED, State.STORED, 1, 5, 1),
            ],
        )

    def test_a_batch_that_is_sent_in_parts_is_one(self) -> None:
        message = MsgSubmitPocBatch(poc_stage_start_block_height=100, nonces=range(5), dist=[0.5] * 5)
        entry = OutboxEntry("1", Kind.GENERATED, "a", 100, 5, Via.HTTP, message.SerializeToString())
        self.clock.wait_for(self.outbox.put(entry))
        self.assertEqual(len(self.clock.wait_for(self.submissions.next_messages(101, 10**6, 2))), 3)
        self.assertEqual(
            self.clock.wait_for(stage_ledger(self.database, 100)),
            [LedgerLine("a", Kind.GENERATED, State.IN_FLIGHT, 1, 5, 1)],
        )

    def test_summed_up_by_node(self) -> None:
        lines = [
            LedgerLine(None, Kind.VALIDATED, State.STORED, 1, 5, 1),
            LedgerLine(None, Kind.SEED, State.CONFIRMED, 1, 0, 1),
            LedgerLine("a", Kind.GENERATED, State.CONFIRMED, 3, 30, 4),
            LedgerLine("a", Kind.GENERATED, State.IN_FLIGHT, 2, 20, 2),
            LedgerLine("a", Kind.VALIDATED, State.CONFIRMED, 7, 70, 9),
            LedgerLine("b", Kind.GENERATED, State.EXPIRED, 1, 10, 1),
        ]
        self.assertEqual(
            by_node(lines),
            {
                "": NodeLedger(validated=1),
                "a": NodeLedger(generated=5, nonces=50, doubled=1, in_flight=2, confirmed=3, validated=7),
                "b": NodeLedger(generated=1, nonces=10, expired=1),
            },
        )

    def test_what_expired_is_told(self) -> None:
        self.put("1")
        self.put("2", height=140)
        self.assertEqual(
            self.clock.wait_for(self.submissions.stages_stored()), [(100, Kind.GENERATED), (140, Kind.GENERATED)]
        )
        self.assertEqual(self.clock.wait_for(self.submissions.expire(100, Kind.GENERATED, "too late")), 1)
        self.assertEqual(
            self.clock.wait_for(stage_ledger(self.database, 100)),
            [LedgerLine("a", Kind.GENERATED, State.EXPIRED, 1, 5, 1)],
        )
        self.assertEqual(self.clock.wait_for(self.submissions.stages_stored()), [(140, Kind.GENERATED)])
        counts = self.clock.wait_for(self.outbox.counts())
        self.assertEqual((counts["expired"], counts["stored"]), (1, 1))
