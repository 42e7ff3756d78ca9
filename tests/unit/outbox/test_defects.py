"""A delivery that cannot be made ready for the disk costs its group, and none that comes after it."""

from __future__ import annotations

from typing import Any

from dapi.messages import Receipt
from tests.unit.outbox.outbox_case import OutboxTestCase, entry


class DefectTests(OutboxTestCase):
    def test_who_waits_is_told_and_the_next_ones_are_stored(self) -> None:
        text: Any = "no bytes"
        broken, beside = self.outbox.put(entry("a", message=text)), self.outbox.put(entry("b"))
        self.clock.turn()
        self.failureResultOf(broken, TypeError)
        self.failureResultOf(beside, TypeError)
        self.assertEqual(self.outbox.status()["pending_bytes"], 0)
        self.assertEqual(self.put("b"), Receipt("b", 1))
        self.assertEqual(self.ids(), ["b"])
