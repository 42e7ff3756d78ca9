"""What was lost in the latest stages, on a real database."""

from __future__ import annotations

import sqlite3

from dapi.messages import Kind, State
from dapi.outbox.losses import DAMAGED, Loss, losses
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase


class LossTests(SubmissionsTestCase):
    def lost(self) -> list[Loss]:
        found: list[Loss] = self.wait(losses(self.database))
        return found

    def tell(self, *heights: int) -> None:
        """Have the chain tell of stages."""
        for height in heights:
            self.change(f"INSERT INTO stages (height, stage, node_count) VALUES ({height}, '{{}}', 1)")

    def change(self, statement: str) -> None:
        def execute(connection: sqlite3.Connection) -> None:
            connection.execute(statement)

        self.wait(self.database.write(execute))

    def refuse(self, reason: str) -> None:
        """Have the next message fail."""
        messages = self.send(self.next(height=1001))
        self.wait(self.submissions.fail(messages, HASH, reason))

    def test_nothing_is_lost(self) -> None:
        self.assertEqual(self.lost(), [])
        self.tell(1000)
        self.record(1, height=1000)
        self.assertEqual(self.lost(), [])

    def test_by_stage_kind_and_state(self) -> None:
        self.tell(1000, 2000)
        for nonces in (1, 2):
            self.record(nonces, height=1000)
        self.record_verdict(height=1000)
        self.record(3, height=2000)
        self.wait(self.submissions.expire(1000, Kind.GENERATED, "its window ended with block 1065"))
        self.refuse("inference 1145: no")
        self.assertEqual(
            self.lost(),
            [
                Loss(1000, Kind.GENERATED, State.EXPIRED, False, 2, "its window ended with block 1065"),
                Loss(1000, Kind.VALIDATED, State.FAILED, False, 1, "inference 1145: no"),
            ],
        )

    def test_only_of_the_latest_three_stages_and_later_ones(self) -> None:
        for height in (1000, 2000, 3000, 4000, 5000):
            self.record(height // 1000, height=height)
            self.wait(self.submissions.expire(height, Kind.GENERATED, "late"))
        self.tell(1000, 2000, 3000, 4000)
        self.assertEqual([loss.height for loss in self.lost()], [2000, 3000, 4000, 5000])

    def test_what_the_disk_has_damaged(self) -> None:
        self.tell(1000)
        self.record(1, height=1000)
        self.change("UPDATE unfinished SET message = x'00'")
        self.assertEqual(self.next(height=1001), [])
        self.assertEqual(self.lost(), [Loss(1000, Kind.GENERATED, State.FAILED, True, 1, DAMAGED)])
