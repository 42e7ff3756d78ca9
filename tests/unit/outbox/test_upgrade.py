"""A database that an earlier dapi has left is brought up to date, and everything in it means what it meant."""

from __future__ import annotations

import gzip
from hashlib import sha256

from dapi.database import file as database_file
from dapi.database.schema import SCHEMA_VERSIONS
from dapi.errors import StartError
from dapi.messages import Kind, Receipt, State
from dapi.outbox.ledger import NodeLedger, stage_ledger
from dapi.outbox.outbox import Outbox
from tests.unit.database.old_file import OLD_FILE
from tests.unit.database.store_tools import StoreTestCase
from tests.unit.outbox.outbox_case import entry


def id_of(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


class OldDatabaseTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path.parent.mkdir()
        self.path.write_bytes(gzip.decompress(OLD_FILE.read_bytes()))


class FailedUpgradeTests(OldDatabaseTestCase):
    def test_it_leaves_all_as_it_was(self) -> None:
        before = self.path.read_bytes()
        self.patch(database_file, "SCHEMA_VERSIONS", (*SCHEMA_VERSIONS, "INSERT INTO finished VALUES (1);"))
        with self.assertRaisesRegex(StartError, "cannot be opened"):
            self.open_database()
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.look("PRAGMA user_version"), [(11,)])
        self.assertEqual(self.look("SELECT count(*) FROM finished"), [(12,)])


class UpgradeTests(OldDatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        before = self.look("SELECT * FROM finished ORDER BY seq"), self.look("SELECT * FROM unfinished ORDER BY seq")
        self.finished_before, self.unfinished_before = before
        self.database = self.open_database()
        self.outbox = Outbox(self.clock, self.database, now=self.clock.seconds)

    def test_every_row_is_there_with_all_that_it_had(self) -> None:
        self.assertEqual(self.execute(self.database, "PRAGMA user_version"), [(len(SCHEMA_VERSIONS),)])
        self.assertEqual(self.look("SELECT * FROM unfinished ORDER BY seq"), self.unfinished_before)
        columns = (
            "seq, batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at, finished_at,"
            " attempts, tx_hash, included_height, reason, crc32, message, seen_by_http, run"
        )
        self.assertEqual(self.look(f"SELECT {columns} FROM finished ORDER BY seq"), self.finished_before)
        self.assertEqual(len(self.finished_before), 12)
        self.assertEqual(self.look("PRAGMA integrity_check"), [("ok",)])

    def test_the_counts_are_those_of_the_rows(self) -> None:
        counts = self.clock.wait_for(self.outbox.counts())
        self.assertEqual(counts, {"stored": 5, "in_flight": 1, "confirmed": 8, "failed": 2, "expired": 2})
        self.assertEqual(
            self.clock.wait_for(stage_ledger(self.database, 100)),
            {
                "": NodeLedger(validated=1),
                "node1": NodeLedger(generated=6, nonces=120, doubled=1, confirmed=3, failed=2, expired=1),
                "node2": NodeLedger(generated=5, nonces=100, doubled=2, stored=1, confirmed=3, expired=1),
            },
        )

    def test_what_comes_again_is_known(self) -> None:
        confirmed = self.clock.wait_for(self.outbox.put(entry(id_of(0), height=100)))
        self.assertEqual(confirmed, Receipt(id_of(0), 4))
        claim = self.clock.wait_for(self.outbox.put(entry("claim-1", kind=Kind.CLAIM, height=0)))
        self.assertEqual(claim.seen, 2)
        seed = self.clock.wait_for(self.outbox.put(entry("seed-1", kind=Kind.SEED, height=7)))
        self.assertEqual(seed.seen, 2)
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(len(self.unfinished_before),)])

    def test_what_failed_can_be_sent_again_and_is_counted_so(self) -> None:
        self.clock.wait_for(self.outbox.retry(id_of(10)))
        stored = self.clock.wait_for(self.outbox.batches(state=State.STORED, kind=Kind.GENERATED))
        self.assertIn(id_of(10), [row.batch_id for row in stored.batches])
        ledger = self.clock.wait_for(stage_ledger(self.database, 100))
        self.assertEqual((ledger["node1"].stored, ledger["node1"].failed, ledger["node1"].generated), (1, 1, 6))
