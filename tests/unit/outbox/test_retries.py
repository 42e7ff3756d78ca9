"""Failed batches that are sent again, all that match, and batches that are listed with their messages."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dapi.errors import UnknownBatchError
from dapi.messages import Kind, State
from dapi.messages.sizes import MIB
from dapi.outbox.retries import Retried
from dapi.outbox.whole import WholePage
from tests.unit.outbox.outbox_case import PROPERTY, OutboxTestCase, entry


class RetryTests(OutboxTestCase):
    def put_failed(self, batch_id: str, message: bytes = b"message", **fields: Any) -> None:
        self.put(batch_id, message=message, **fields)
        self.finish(batch_id, State.FAILED)
        # What the test case moves has no body.
        self.execute(self.database, "UPDATE finished SET crc32 = 1, message = ? WHERE batch_id = ?", message, batch_id)

    def retry(self, **filters: Any) -> Retried:
        return self.clock.wait_for(self.outbox.retry_some(**filters))

    def test_nothing_has_failed(self) -> None:
        self.put("a")
        self.assertEqual(self.retry(), Retried(0, None))
        self.assertEqual(self.counts(), {"stored": 1})

    def test_all_that_failed_and_nothing_else(self) -> None:
        self.put("stored")
        for batch_id, state in (("confirmed", State.CONFIRMED), ("expired", State.EXPIRED)):
            self.put(batch_id)
            self.finish(batch_id, state)
        self.put_failed("a")
        self.put_failed("b", kind=Kind.VALIDATED)
        self.counts()
        woken: list[None] = []
        self.outbox.observe(lambda: woken.append(None))
        self.assertEqual(self.retry(), Retried(2, None))
        self.assertEqual(self.counts(), {"stored": 3, "confirmed": 1, "expired": 1})
        self.assertEqual(self.make_counts_anew(), self.counts())
        by_kind = self.clock.wait_for(self.outbox.counts_by_kind())
        self.assertEqual(by_kind[Kind.VALIDATED, State.STORED], 1)
        self.assertEqual(len(woken), 1)
        self.assertEqual(self.look("SELECT message FROM unfinished WHERE batch_id = 'a'"), [(b"message",)])

    def make_counts_anew(self) -> dict[str, int]:
        counts = self.clock.wait_for(self.make_outbox().counts())
        return {state: number for state, number in counts.items() if number}

    def test_filters(self) -> None:
        for node_id in ("n1", "n2"):
            for kind in (Kind.GENERATED, Kind.VALIDATED, Kind.CLAIM):
                self.put_failed(f"{node_id} {kind}", node_id=node_id, kind=kind)
        self.assertEqual(self.retry(node_id="n1", kind=Kind.VALIDATED), Retried(1, None))
        self.assertEqual(self.ids(state=State.STORED), ["n1 validated"])
        # What is no batch is sent again only by those who ask for it.
        self.assertEqual(self.retry().batches, 3)
        self.assertEqual(self.retry(kind=Kind.CLAIM).batches, 2)

    def test_many_are_sent_again_some_at_a_time(self) -> None:
        puts = [self.outbox.put(entry(f"batch {number}")) for number in range(300)]
        for put in puts:
            self.clock.wait_for(put)
        self.execute(
            self.database,
            "INSERT INTO finished (seq, batch_id, kind, state, node_id, via, height, nonces, seen, received_at,"
            " last_seen_at, finished_at, attempts, crc32, message) SELECT seq, batch_id, kind, 'failed', node_id, via,"
            " height, nonces, seen, received_at, last_seen_at, 1.0, 0, 1, message FROM unfinished",
        )
        self.execute(self.database, "DELETE FROM unfinished")
        self.execute(
            self.database,
            "INSERT INTO ledger SELECT 1000, 'node1', 'generated', 'failed', count(*), 0, 0 FROM finished",
        )
        self.outbox = self.make_outbox()
        first = self.retry()
        self.assertEqual((first.batches, self.counts()), (256, {"stored": 256, "failed": 44}))
        self.assertIsNotNone(first.next)
        # What fails once more meanwhile is not met again by those who go on with the cursor.
        self.finish("batch 299", State.FAILED)
        self.execute(self.database, "UPDATE finished SET message = x'00', crc32 = 1 WHERE message IS NULL")
        self.assertEqual(self.retry(before=first.next), Retried(44, None))
        self.assertEqual(self.make_counts_anew(), {"stored": 299, "failed": 1})
        # Nor are all the newer ones looked through that have not failed.
        self.execute(self.database, "UPDATE finished SET seq = 0")
        self.assertEqual(self.retry(), Retried(1, None))

    def test_large_ones_are_sent_again_one_commit_each(self) -> None:
        for batch_id in "abc":
            self.put_failed(batch_id, bytes(5 * MIB))
        first = self.retry()
        self.assertEqual(first.batches, 1)
        self.assertEqual(self.retry(before=first.next).batches, 1)

    def test_as_many_in_one_commit_as_have_8_mib_together(self) -> None:
        for batch_id in "abc":
            self.put_failed(batch_id, bytes(4 * MIB))
        self.assertEqual([self.retry().batches for _ in range(2)], [2, 1])

    def test_a_damaged_row_keeps_no_other_from_being_sent_again(self) -> None:
        for batch_id in "abc":
            self.put_failed(batch_id)
        self.execute(self.database, "UPDATE finished SET crc32 = NULL WHERE batch_id = 'b'")
        self.assertEqual(self.retry(), Retried(2, None))
        self.assertEqual(self.ids(state=State.FAILED), ["b"])
        with self.assertRaisesRegex(UnknownBatchError, "the batch 'b' cannot be sent again: .* the disk has damaged"):
            self.clock.wait_for(self.outbox.retry("b"))

    def test_one_that_has_not_failed(self) -> None:
        self.put("a")
        with self.assertRaisesRegex(UnknownBatchError, "no failed batch has the id 'a'"):
            self.clock.wait_for(self.outbox.retry("a"))

    def test_one_whose_kind_is_damaged(self) -> None:
        self.put_failed("a")
        self.counts()
        self.execute(self.database, "UPDATE finished SET kind = 'confused'")
        self.clock.wait_for(self.outbox.retry("a"))
        self.assertEqual(self.counts(), {"stored": 1})
        self.assertEqual(self.make_counts_anew(), self.counts())

    def test_one_that_two_send_again_at_once_is_stored_once(self) -> None:
        self.put_failed("a")
        first, second = self.outbox.retry("a"), self.outbox.retry("a")
        self.clock.wait_for(first)
        with self.assertRaisesRegex(UnknownBatchError, "is sent already|no failed batch"):
            self.clock.wait_for(second)
        self.assertEqual(self.make_counts_anew(), {"stored": 1})

    def test_what_has_no_body_stays_failed(self) -> None:
        self.put("a")
        self.finish("a", State.FAILED)
        self.assertEqual(self.retry(), Retried(0, None))
        self.assertEqual(self.counts(), {"failed": 1})


class WholeTests(OutboxTestCase):
    def whole(self, **filters: Any) -> WholePage:
        return self.clock.wait_for(self.outbox.whole_batches(**filters))

    def test_the_messages_are_those_that_were_put(self) -> None:
        self.put("a", message=b"first")
        self.put("b", message=b"second", node_id="n2")
        self.finish("a")
        found = self.whole()
        self.assertEqual(found.page, self.batches())
        # What is confirmed has lost its body.
        self.assertEqual(found.messages, {2: b"second"})
        self.assertEqual([row.batch_id for row in self.whole(node_id="n2").page.batches], ["b"])

    def test_a_damaged_row_comes_with_what_is_left(self) -> None:
        self.put("a", message=b"whole")
        self.execute(self.database, "UPDATE unfinished SET kind = x'ff00ff'")
        found = self.whole()
        self.assertEqual((found.page.batches, len(found.page.damaged)), ([], 1))
        self.assertEqual(found.messages, {1: b"whole"})

    def test_as_many_on_a_page_as_have_4_mib_together_be_they_damaged(self) -> None:
        for batch_id in "abc":
            self.put(batch_id, message=bytes(2 * MIB))
        self.execute(self.database, "UPDATE unfinished SET kind = x'ff00ff' WHERE batch_id IN ('a', 'b')")
        first = self.whole()
        self.assertEqual(([row.seq for row in first.page.batches], [row.seq for row in first.page.damaged]), ([3], [2]))
        self.assertEqual((sorted(first.messages), first.page.next), ([2, 3], 2))
        second = self.whole(before=first.page.next)
        self.assertEqual((second.page.batches, [row.seq for row in second.page.damaged]), ([], [1]))
        self.assertEqual((sorted(second.messages), second.page.next), ([1], None))

    def test_filters(self) -> None:
        self.put("a", kind=Kind.VALIDATED)
        self.put("b")
        self.finish("b")
        self.put("c")
        for filters, expected in (({"kind": Kind.VALIDATED}, "a"), ({"state": State.CONFIRMED}, "b")):
            self.assertEqual([row.batch_id for row in self.whole(**filters).page.batches], [expected])

    @settings(PROPERTY, max_examples=15)
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 4))
    def test_each_batch_comes_once_whatever_the_sizes(self, sizes: list[int], limit: int) -> None:
        self.execute(self.database, "DELETE FROM unfinished")
        for number, size in enumerate(sizes):
            self.put(str(number), message=bytes(size * MIB + number))
        found: dict[str, int] = {}
        before = None
        for _ in sizes:
            whole = self.whole(limit=limit, before=before)
            self.assertLessEqual(sum(map(len, whole.messages.values())), 4 * MIB + 4 * MIB * (len(whole.messages) == 1))
            for row in whole.page.batches:
                self.assertNotIn(row.batch_id, found)
                found[row.batch_id] = len(whole.messages[row.seq])
            before = whole.page.next
            if before is None:
                break
        self.assertEqual(found, {str(number): size * MIB + number for number, size in enumerate(sizes)})
