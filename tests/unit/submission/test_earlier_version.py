"""A database that an earlier version of dapi left is brought up to date, and what is in it goes on from its state.

``tests/vectors/database_v1.sql`` is the dump of a database in which that version itself put rows into every state.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dapi.messages import Kind, State
from tests.unit.submission.submissions_case import SubmissionsTestCase

VECTOR = Path(__file__).parents[2] / "vectors" / "database_v1.sql"
# By the first character of their transactions' hashes, which repeat it.
UNFINISHED = {
    "stored": ("stored", None, None, 0),
    "stored-again": ("stored", None, "in no block when its time had passed", 1),
    "retried": ("stored", None, None, 0),
    "in-flight": ("in_flight", "e", None, 1),
    "in-parts": ("in_parts", None, None, 0),
    "in-parts-10-19": ("in_flight", "2", None, 1),
    "in-parts-20-24": ("stored", None, "dropped", 0),
    "failing": ("failing", "4", "inference 1145: no node", 0),
    "failing-10-19": ("in_flight", "5", None, 1),
    "damaged": (
        "failing",
        None,
        "damaged on disk: its bytes are not those that were stored, and were not sent",
        0,
    ),
    "damaged-0-9": ("in_flight", "6", None, 1),
    "expiring": ("expiring", None, "its window ended with block 6", 0),
    "expiring-0-9": ("in_flight", "7", None, 1),
}
FINISHED = {
    "confirmed": "confirmed",
    "failed": "failed",
    "expired": "expired",
    "verdict-10-gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p": "confirmed",
    "gone": "confirmed",
}


class EarlierVersionTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fresh = self.described()
        self.close_database(self.database)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        earlier = sqlite3.connect(self.path, isolation_level=None)
        earlier.executescript(VECTOR.read_text())
        earlier.close()
        self.begin(self.open_database())

    def described(self) -> list[tuple[object, ...]]:
        """The tables and indexes, with their columns."""
        columns = "SELECT type, name, tbl_name, (SELECT group_concat(name) FROM pragma_{}_info({}.name)) FROM {}"
        tables = "(SELECT * FROM sqlite_master WHERE type = 'table') AS t"
        indexes = "(SELECT * FROM sqlite_master WHERE type = 'index') AS i"
        found = self.look(f"{columns.format('table', 't', tables)} UNION ALL {columns.format('index', 'i', indexes)}")
        return sorted(found, key=str)

    def test_every_row_is_in_its_state(self) -> None:
        query = "SELECT batch_id, state, substr(tx_hash, 1, 1), reason, attempts FROM unfinished"
        self.assertEqual({batch_id: tuple(rest) for batch_id, *rest in self.look(query)}, UNFINISHED)
        self.assertEqual(dict(self.look("SELECT batch_id, state FROM finished")), FINISHED)
        self.assertEqual(
            self.look("SELECT seen, max_messages, not_before FROM unfinished WHERE seq < 8"), [(2, 0, 0), (1, 1, 15)]
        )
        self.assertEqual(self.counts(), {"stored": 3, "in_flight": 5, "confirmed": 3, "failed": 1, "expired": 1})
        listed = {row.batch_id: row.state for row in self.rows().values()}
        self.assertEqual(
            {batch_id for batch_id, state in listed.items() if state is State.IN_FLIGHT},
            {"in-flight", "in-parts", "failing", "damaged", "expiring"},
        )

    def test_its_tables_are_those_of_a_new_database(self) -> None:
        self.assertEqual(self.described(), self.fresh)
        self.assertEqual(self.look("SELECT height, node_count FROM stages"), [(10, 3)])
        self.assertEqual(self.look("SELECT id, enabled FROM nodes"), [("node1", 1)])

    def test_no_number_is_given_twice(self) -> None:
        # The highest number that was given is that of a batch in the other table.
        self.assertEqual(self.look("SELECT max(seq) FROM unfinished"), [(25,)])
        batch_id = self.record(1000)
        self.assertEqual(self.rows()[batch_id].seq, 27)

    def test_what_was_in_flight_comes_to_its_end(self) -> None:
        transactions = self.wait(self.submissions.transactions_in_flight())
        self.assertEqual(sorted(each.hash[0] for each in transactions), ["2", "5", "6", "7", "e"])
        self.assertEqual({each.timeout_ns for each in transactions}, {1000})
        for each in transactions:
            self.wait(self.submissions.confirm(each.messages, each.hash, 20))
        ended = self.rows()
        self.assertEqual(
            {
                batch_id: (ended[batch_id].state, ended[batch_id].reason)
                for batch_id in ("failing", "damaged", "expiring")
            },
            {
                "failing": (State.FAILED, UNFINISHED["failing"][2]),
                "damaged": (State.FAILED, UNFINISHED["damaged"][2]),
                "expiring": (State.EXPIRED, UNFINISHED["expiring"][2]),
            },
        )
        self.assertEqual((ended["failing"].tx_hash, ended["damaged"].tx_hash), ("4" * 64, None))
        self.assertEqual(self.counts(), {"stored": 3, "in_flight": 1, "confirmed": 4, "failed": 3, "expired": 2})
        # It goes alone, as the earlier version has decided.
        (part,) = self.next(height=100)
        self.assertEqual(self.ids([part]), ["in-parts-20-24"])
        self.wait(self.submissions.confirm(self.send([part]), "AB" * 32, 101))
        self.assertIs(self.rows()["in-parts"].state, State.CONFIRMED)
        self.assertEqual(self.ids(self.next(height=100)), ["stored", "retried"])

    def test_what_failed_is_sent_again_and_what_is_late_expires(self) -> None:
        self.wait(self.outbox.retry("failed"))
        self.assertEqual(self.wait(self.submissions.expire(10, Kind.GENERATED, "late")), 4)
        self.assertEqual(self.counts(), {"in_flight": 5, "confirmed": 3, "expired": 5})
