"""Every transition that is drawn in ``dapi.database.schema`` happens, and no other; on a real database."""

from __future__ import annotations

from collections.abc import Callable

from dapi.database.schema import RowState
from dapi.errors import UnknownBatchError
from dapi.messages import Kind, State
from dapi.submission.choice import Room
from dapi.submission.rows import Message
from tests.submissions import choose, put_in_flight
from tests.unit.submission.submissions_case import HASH, OTHER, SubmissionsTestCase

NEVER_SENT = "EF" * 32
REASON = "why"
# From a state, by an event, to a state: all that is not here changes nothing.
OF_WHOLE_MESSAGES = {
    ("stored", "put_in_flight"): "in_flight",
    ("stored", "expire"): "expired",
    ("stored", "find damaged"): "failed",
    ("stored", "cut"): "in_parts",
    ("in_flight", "store_again"): "stored",
    ("in_flight", "confirm"): "confirmed",
    ("in_flight", "fail"): "failed",
    ("failed", "retry"): "stored",
    # Its parts are stored.
    ("in_parts", "expire"): "expired",
}
# Of a batch with one part in flight and one stored, or in flight in another transaction.
WITH_PARTS = {
    ("in_parts", "confirm"): "in_parts",
    ("in_parts", "store_again"): "in_parts",
    ("in_parts", "fail"): "failing",
    ("in_parts", "expire"): "expiring",
    ("failing", "confirm"): "failing",
    ("failing", "store_again"): "failing",
    ("failing", "fail"): "failing",
    ("failing", "expire"): "failing",
    ("expiring", "confirm"): "expiring",
    ("expiring", "store_again"): "expiring",
    ("expiring", "fail"): "failing",
    ("expiring", "expire"): "expiring",
}
# Of a batch of which the last part is in flight.
WITH_THE_LAST_PART = {
    ("in_parts", "confirm"): "confirmed",
    ("in_parts", "store_again"): "in_parts",
    ("in_parts", "fail"): "failed",
    ("in_parts", "expire"): "in_parts",
    ("failing", "confirm"): "failed",
    ("failing", "store_again"): "failed",
    ("failing", "fail"): "failed",
    ("failing", "expire"): "failing",
    ("expiring", "confirm"): "expired",
    ("expiring", "store_again"): "expired",
    ("expiring", "fail"): "failed",
    ("expiring", "expire"): "expiring",
}


class StateTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.height = 10

    def state_of(self, batch_id: str) -> str:
        find = "SELECT state FROM {} WHERE batch_id = '" + batch_id + "'"
        ((state,),) = self.look(f"{find.format('unfinished')} UNION ALL {find.format('finished')}")
        return str(state)

    def message(self, batch_id: str) -> Message:
        find = "SELECT seq FROM {} WHERE batch_id = '" + batch_id + "'"
        ((seq,),) = self.look(f"{find.format('unfinished')} UNION ALL {find.format('finished')}")
        return Message(seq, Kind.GENERATED, self.height, 1)

    def batch_in(self, state: str) -> str:
        """Record a batch of a stage of its own, and bring it into a state."""
        self.height += 1
        batch_id = self.record(*range(25), height=self.height)
        way = {"in_flight": [], "confirmed": ["confirm"], "failed": ["fail"]}
        if state == "in_parts":
            self.do("cut", batch_id)
        elif state == "expired":
            self.do("expire", batch_id)
        elif state in way:
            for event in ["put_in_flight", *way[state]]:
                self.do(event, batch_id)
        self.assertEqual(self.state_of(batch_id), state)
        return batch_id

    def do(self, event: str, batch_id: str, message: Message | None = None, tx_hash: str = HASH) -> None:
        """Have something happen to a batch, or to a message of it."""
        messages = [message if message is not None else self.message(batch_id)]
        events: dict[str, Callable[[], object]] = {
            "put_in_flight": lambda: put_in_flight(self.submissions, messages, tx_hash, 7, 11),
            "store_again": lambda: self.submissions.store_again(messages, tx_hash, REASON),
            "confirm": lambda: self.submissions.confirm(messages, tx_hash, 12),
            "fail": lambda: self.submissions.fail(messages, tx_hash, REASON),
            "expire": lambda: self.submissions.expire(self.height, Kind.GENERATED, REASON),
            "retry": lambda: self.outbox.retry(batch_id),
            "cut": lambda: choose(self.submissions, self.height + 1, Room(100_000, 10)),
            "find damaged": lambda: choose(self.submissions, self.height + 1, Room(100_000, 1000)),
        }
        if event == "find damaged":
            self.execute(self.database, "UPDATE unfinished SET crc32 = crc32 + 1 WHERE batch_id = ?", batch_id)
        try:
            self.wait(events[event]())
        except UnknownBatchError:
            self.assertEqual(event, "retry")

    def test_of_whole_messages(self) -> None:
        events = sorted({event for _, event in OF_WHOLE_MESSAGES})
        for state in ("stored", "in_flight", "in_parts", "confirmed", "failed", "expired"):
            for event in events:
                with self.subTest(state=state, event=event):
                    batch_id = self.batch_in(state)
                    before = self.counts()
                    self.do(event, batch_id)
                    after = OF_WHOLE_MESSAGES.get((state, event), state)
                    self.assertEqual(self.state_of(batch_id), after)
                    if after == state:
                        self.assertEqual(self.counts(), before)
                    self.clear()

    def test_of_a_transaction_that_the_message_is_not_in(self) -> None:
        for state in ("stored", "in_flight", "in_parts"):
            for event in ("store_again", "confirm", "fail"):
                batch_id = self.batch_in(state)
                self.do(event, batch_id, tx_hash=NEVER_SENT)
                self.assertEqual(self.state_of(batch_id), state)
                self.clear()

    def batch_in_parts(self, state: str) -> tuple[str, Message]:
        """Bring a batch into a state in which it has parts; return it with a part that is in flight in HASH."""
        batch_id = self.batch_in("in_parts")
        first, second, third = (self.message(f"{batch_id}-{part}") for part in ("0-9", "10-19", "20-24"))
        self.do("put_in_flight", batch_id, first)
        self.do("put_in_flight", batch_id, second, OTHER)
        self.do("put_in_flight", batch_id, third, NEVER_SENT)
        if state == "failing":
            self.do("fail", batch_id, third, NEVER_SENT)
        else:
            self.do("store_again", batch_id, third, NEVER_SENT)
            if state == "expiring":
                self.do("expire", batch_id)
        self.assertEqual(self.state_of(batch_id), state)
        return batch_id, first

    def test_of_a_batch_in_parts(self) -> None:
        for (state, event), after in WITH_PARTS.items():
            with self.subTest(state=state, event=event):
                batch_id, part = self.batch_in_parts(state)
                self.do(event, batch_id, part)
                self.assertEqual(self.state_of(batch_id), after)
                self.assertEqual(self.counts(), {"in_flight": 1})
                self.assertIs(self.rows()[batch_id].state, State.IN_FLIGHT)
                self.clear()

    def test_of_its_last_part(self) -> None:
        for (state, event), after in WITH_THE_LAST_PART.items():
            with self.subTest(state=state, event=event):
                batch_id, part = self.batch_in_parts(state)
                second, third = (self.message_if_there(f"{batch_id}-{rest}") for rest in ("10-19", "20-24"))
                assert second is not None
                self.do("confirm", batch_id, second, OTHER)
                if third is not None:
                    self.do("put_in_flight", batch_id, third, OTHER)
                    self.do("confirm", batch_id, third, OTHER)
                self.assertEqual(self.state_of(batch_id), state)
                self.do(event, batch_id, part)
                self.assertEqual(self.state_of(batch_id), after)
                self.assertEqual(len(self.look("SELECT * FROM unfinished")), 0 if after in tuple(State) else 2)
                self.clear()

    def test_every_state_of_a_row_is_walked(self) -> None:
        walked = {state for table in (OF_WHOLE_MESSAGES, WITH_PARTS) for state, _ in table}
        self.assertEqual(walked - set(State), set(RowState) - set(State))
        self.assertTrue(walked.issuperset(RowState))

    def message_if_there(self, batch_id: str) -> Message | None:
        return self.message(batch_id) if self.look(f"SELECT 1 FROM unfinished WHERE batch_id = '{batch_id}'") else None

    def clear(self) -> None:
        self.execute(self.database, "DELETE FROM unfinished")
        self.execute(self.database, "DELETE FROM finished")
        self.begin(self.database)
