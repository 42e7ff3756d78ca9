"""What is for nothing is counted and bounded by node, and a verdict that nobody asked for is kept apart."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from dapi.errors import QuotaError, StoreClosedError
from dapi.messages import Kind, Receipt, Via
from dapi.messages.addresses import address_of
from dapi.messages.content_id import run_id
from dapi.messages.sizes import MIB
from dapi.outbox.comparison import Comparison
from dapi.outbox.cosmos_message_client import CosmosMessageClient, encoded_batch
from tests.batches import PUBLIC_KEY, generated_batch, validated_batch
from tests.chain_tools import Key
from tests.unit.outbox.outbox_case import OutboxTestCase, entry

RIGHT = run_id("AB", PUBLIC_KEY)
OTHERS = [Key(seed).public.hex() for seed in (2, 3)]
ADDRESSES = [address_of(public_key) for public_key in OTHERS]
NOT_ASKED_FOR = "not sent: a verdict that the node was not asked for"


class ComparisonTestCase(OutboxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stage(1000)
        self.begin()

    def begin(self, **bounds: int) -> None:
        """Begin as a process does."""
        self.comparison = Comparison(self.clock, self.database, **bounds)
        self.recorder = CosmosMessageClient(self.outbox, comparison=self.comparison)
        self.answered: list[str] = []
        self.heights: list[int] = []
        self.recorder.observe_verdicts(lambda public_key, height: self.answered.append(public_key))
        self.recorder.observe_verdicts(lambda public_key, height: self.heights.append(height))

    def stage(self, height: int, run: str | None = RIGHT) -> None:
        statement = "INSERT INTO stages (height, stage, node_count, run) VALUES (?, '', 2, ?)"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(statement, (height, run))))

    def batch(
        self, number: int, height: int, node_id: str = "node1", *, has_others_nonces: bool = False, **changes: Any
    ) -> Deferred[Receipt]:
        batch = generated_batch(**{"block_hash": "AB", "block_height": height, "nonces": [number], **changes})
        return self.recorder.submit_poc_batch(
            batch, batch_id=f"b{number}", node_id=node_id, via=Via.HTTP, has_others_nonces=has_others_nonces
        )

    def keep(self, number: int, height: int, node_id: str = "node1", **changes: Any) -> None:
        self.clock.wait_for(self.batch(number, height, node_id, **changes))

    def refused(self, number: int, height: int, node_id: str = "node1", **changes: Any) -> str:
        return str(self.failureResultOf(self.batch(number, height, node_id, **changes), QuotaError).value)

    def look_again(self) -> None:
        self.clock.wait_for(self.comparison.look())

    def shown(self, name: str) -> Any:
        return self.comparison.status()[name]


class QuotaTests(ComparisonTestCase):
    def test_before_the_first_look_nothing_is_refused(self) -> None:
        self.begin(max_messages=1)
        self.assertEqual(self.comparison.status(), {"kept": [], "refused": 0, "not_asked_for": 0})
        for number in range(3):
            self.keep(number, 5000)
        self.look_again()
        self.assertIn("3 messages", self.refused(3, 5000))
        self.assertEqual(self.counts(), {"stored": 3})

    def test_no_more_messages_than_that(self) -> None:
        self.begin(max_messages=2)
        self.look_again()
        self.keep(1, 5000)
        self.keep(2, 6000)
        text = self.refused(3, 7000)
        self.assertIn("2 messages", text)
        self.assertIn("of node1 are kept that no PoC stage of this host is for", text)
        self.assertIn("block height (in this message 7000)", text)
        self.assertEqual((self.shown("refused"), self.counts()), (1, {"stored": 2}))

    def test_no_more_bytes_than_that(self) -> None:
        self.begin(max_bytes=300)
        self.look_again()
        numbers = list(range(20))
        self.keep(1, 5000, nonces=numbers, dist=[0.5] * 20)
        self.refused(2, 5000, nonces=numbers, dist=[0.5] * 20)
        self.keep(3, 5000)

    def test_exactly_as_many_bytes_as_that_whenever_they_came(self) -> None:
        size = len(encoded_batch(generated_batch(block_height=5000, nonces=[1]), "b1", "node1"))
        self.begin(max_bytes=3 * size)
        self.look_again()
        self.keep(1, 5000)
        looking = self.comparison.look()
        # It comes while the database counts the first one, which may see it on disk or not: here it never is.
        self.comparison.admit(entry("b2", bytes(size), height=5000))
        self.clock.wait_for(looking)
        self.keep(3, 5000)
        for number in (4, 5):
            self.assertIn(f"3 messages ({3 * size} bytes) of node1", self.refused(number, 5000))
        self.assertEqual(self.shown("refused"), 2)

    def test_1000_messages_or_64_mib_where_nothing_else_is_set(self) -> None:
        self.look_again()
        for _ in range(1000):
            self.comparison.admit(entry("x", b"", height=5000))
        self.assertRaises(QuotaError, self.comparison.admit, entry("x", b"", height=5000))
        self.comparison.admit(entry("x", bytes(64 * MIB), height=5000, node_id="node2"))
        self.assertRaises(QuotaError, self.comparison.admit, entry("x", b"1", height=5000, node_id="node2"))

    def test_what_has_others_nonces_is_counted_though_its_stage_is_known(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 1000, has_others_nonces=True)
        self.refused(2, 1000, has_others_nonces=True)
        self.keep(3, 1000)

    def test_what_is_of_a_stage_whose_run_is_not_known_yet_is_not_counted(self) -> None:
        self.stage(2000, None)
        self.begin(max_messages=1)
        self.look_again()
        for number in range(3):
            self.keep(number, 2000)
        self.keep(10, 5000)
        self.refused(11, 5000)

    def test_verdicts_by_http_are_bounded_together(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        stored = [
            self.recorder.submit_poc_validation(
                validated_batch(block_height=1000, public_key=other), batch_id="", node_id=None, via=Via.HTTP
            )
            for other in OTHERS
        ]
        self.clock.wait_for(stored[0])
        with self.assertRaisesRegex(QuotaError, "1 messages .* of HTTP callbacks are kept"):
            self.clock.wait_for(stored[1])

    def test_real_batches_are_never_counted(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 5000)
        self.refused(2, 5000)
        for number in range(10, 15):
            self.keep(number, 1000)
        self.assertEqual(self.counts(), {"stored": 6})

    def test_nor_those_of_a_stage_that_has_just_begun(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 5000)
        self.comparison.expect(2000)
        for number in range(10, 15):
            self.keep(number, 2000)

    def test_what_is_of_another_run_is_counted(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 1000, block_hash="ab")
        self.refused(2, 1000, block_hash="cd")

    def test_each_node_has_its_own_bound(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 5000)
        self.refused(2, 5000)
        self.keep(3, 5000, "node2")

    def test_the_bound_holds_over_a_restart(self) -> None:
        self.keep(1, 5000)
        self.begin(max_messages=1)
        self.look_again()
        self.refused(2, 5000)

    def test_there_is_room_again_when_their_stage_turns_up(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.keep(1, 5000)
        self.refused(2, 5000)
        self.stage(5000)
        self.look_again()
        self.assertEqual(self.shown("kept"), [])
        self.keep(2, 5000)
        self.keep(3, 6000)

    def late_stage(self, last: int, *, last_verdicts: int | None = None) -> None:
        """A stage whose windows end with this block."""
        stage = json.dumps({"batches": {"last": last}, "validations": {"last": last_verdicts or last}})
        statement = "INSERT INTO stages (height, stage, node_count, run) VALUES (1200, ?, 2, ?)"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(statement, (stage, RIGHT))))

    def expire_all(self) -> None:
        statement = "DELETE FROM unfinished"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(statement)))

    def test_what_comes_after_the_window_is_bounded_by_the_day_though_it_expires(self) -> None:
        self.late_stage(1260)
        self.begin(max_messages=2)
        self.clock.wait_for(self.comparison.look(1259))
        for number in range(20):
            self.keep(number, 1200)
        self.clock.wait_for(self.comparison.look(1260))
        for number in range(20, 28):
            self.keep(number, 1200)
            self.expire_all()
            self.clock.wait_for(self.comparison.look(1260 + number))
        text = self.refused(28, 1200)
        self.assertIn("8 messages", text)
        self.assertIn("of node1 came within a day", text)
        self.keep(29, 1200, "node2")
        self.clock.advance(86_400)
        self.keep(30, 1200)

    def test_each_kind_has_its_own_window(self) -> None:
        self.late_stage(1260, last_verdicts=1280)
        self.begin(max_messages=1)
        for height, is_batch_late, is_verdict_late in ((1259, False, False), (1260, True, False), (1280, True, True)):
            self.clock.wait_for(self.comparison.look(height))
            for kind, is_late in ((Kind.GENERATED, is_batch_late), (Kind.VALIDATED, is_verdict_late)):
                node_id = f"{kind}{height}"
                one = entry("x", kind=kind, node_id=node_id, height=1200, run=RIGHT)
                self.comparison.admit(one)
                if is_late:
                    self.assertRaises(QuotaError, self.comparison.admit, one)
                else:
                    self.comparison.admit(one)

    def test_a_day_ends_after_24_hours_and_not_before(self) -> None:
        self.clock.advance(1000)
        self.begin(max_messages=1)
        for _ in range(4):
            self.look_again()
            self.comparison.admit(entry("x", height=5000))
        self.look_again()
        self.clock.advance(86_399)
        with self.assertRaisesRegex(QuotaError, "4 messages .* came within a day .* whose window is open$"):
            self.comparison.admit(entry("x", height=5000))
        self.clock.advance(1)
        self.comparison.admit(entry("x", height=5000))
        # The next day begins then.
        self.look_again()
        self.clock.advance(86_399)
        for _ in range(3):
            self.comparison.admit(entry("x", height=5000))
            self.look_again()
        self.assertRaises(QuotaError, self.comparison.admit, entry("x", height=5000))

    def test_what_no_stage_is_for_is_bounded_by_the_day_though_it_expires(self) -> None:
        self.begin(max_bytes=300)
        numbers = list(range(20))
        for number in range(4):
            self.look_again()
            self.keep(number, 5000, nonces=numbers, dist=[0.5] * 20)
            self.expire_all()
        self.look_again()
        self.refused(9, 5000, nonces=[*numbers, *numbers], dist=[0.5] * 40)

    def test_what_comes_during_a_look_is_counted(self) -> None:
        self.begin(max_messages=2)
        self.look_again()
        looking = self.comparison.look()
        stored = [self.batch(number, 5000) for number in (1, 2)]
        self.clock.wait_for(looking)
        for each in stored:
            self.clock.wait_for(each)
        self.refused(3, 5000)

    def test_nothing_is_asked_of_the_database_when_a_batch_comes(self) -> None:
        self.look_again()
        asked: list[str] = []
        self.clock.wait_for(self.database.write(lambda connection: connection.set_trace_callback(asked.append)))
        for number in (1, 2):
            self.keep(number, 5000)
        self.assertEqual([statement.split()[0] for statement in asked], ["INSERT", "INSERT"])


class VerdictTests(ComparisonTestCase):
    def verdict(self, other: int = 0, node_id: str | None = "node1", height: int = 1000) -> str:
        batch = validated_batch(block_height=height, public_key=OTHERS[other])
        via = Via.HTTP if node_id is None else Via.WEBSOCKET
        stored = self.recorder.submit_poc_validation(batch, batch_id="", node_id=node_id, via=via)
        return self.clock.wait_for(stored).batch_id

    def hand_out(self, *pairs: tuple[int, str], height: int = 1000) -> None:
        self.clock.wait_for(self.comparison.hand_out(height, [(ADDRESSES[other], node) for other, node in pairs]))

    def reasons(self) -> dict[str, str | None]:
        return {row.batch_id: row.reason for row in self.batches().batches}

    def test_one_that_was_asked_for(self) -> None:
        self.hand_out((0, "node1"))
        self.assertEqual(self.verdict(), f"verdict-1000-{ADDRESSES[0]}")
        self.assertEqual(list(self.reasons().values()), [None])
        self.assertEqual((self.answered, self.heights, self.shown("not_asked_for")), ([OTHERS[0]], [1000], 0))

    def test_one_by_http_names_no_node(self) -> None:
        self.hand_out((0, "node2"))
        self.assertEqual(self.verdict(node_id=None), f"verdict-1000-{ADDRESSES[0]}")
        self.verdict(1, node_id=None)
        self.assertEqual(self.answered, [OTHERS[0]])

    def test_one_on_somebody_else(self) -> None:
        self.hand_out((0, "node1"))
        self.verdict(1)
        self.assertEqual(list(self.reasons().values()), [NOT_ASKED_FOR])
        self.assertEqual((self.answered, self.shown("not_asked_for")), ([], 1))
        self.look_again()
        ((told),) = self.shown("kept")
        self.assertEqual((told.height, told.node_id, told.kind, told.messages), (1000, "node1", Kind.VALIDATED, 1))

    def test_one_that_another_node_was_asked_for(self) -> None:
        self.hand_out((0, "node2"))
        self.verdict()
        self.assertEqual(list(self.reasons().values()), [NOT_ASKED_FOR])

    def test_each_way_has_a_place_of_its_own_for_what_nobody_asked_for(self) -> None:
        apart = f"verdict-1000-{ADDRESSES[0]}-not-asked-for"
        ids = [self.verdict(node_id=node_id) for node_id in ("node1", "node2", None)]
        self.assertEqual(ids, [f"{apart}-node1", f"{apart}-node2", f"{apart}-by-http"])
        self.assertEqual(self.shown("not_asked_for"), 3)

    def test_one_of_another_stage(self) -> None:
        self.stage(2000)
        self.hand_out((0, "node1"), height=2000)
        self.verdict(height=1000)
        self.verdict(height=3000)
        self.assertEqual(
            list(self.reasons().values()), ["not sent: the chain has told of no such stage", NOT_ASKED_FOR]
        )

    def test_it_does_not_take_the_place_of_one_that_is_asked_for_later(self) -> None:
        early = self.verdict()
        self.hand_out((0, "node1"))
        real = self.verdict()
        self.assertNotEqual(early, real)
        self.assertEqual(self.reasons(), {early: NOT_ASKED_FOR, real: None})
        self.assertEqual(self.verdict(), real)

    def test_it_is_known_over_a_restart_who_was_handed_out(self) -> None:
        self.hand_out((0, "node1"), (1, "node2"))
        self.begin()
        self.verdict(0, "node1")
        self.verdict(1, "node2")
        self.verdict(1, "node1")
        self.assertEqual(sorted(map(str, self.reasons().values())), ["None", "None", NOT_ASKED_FOR])

    def test_what_is_handed_out_at_once_after_a_restart_is_added(self) -> None:
        self.hand_out((0, "node1"))
        self.begin()
        self.hand_out((1, "node1"))
        self.verdict(0)
        self.verdict(1)
        self.assertEqual(self.answered, OTHERS)

    def test_a_verdict_is_not_taken_while_it_is_not_known_who_was_handed_out(self) -> None:
        self.close_database(self.database)
        batch = validated_batch(block_height=1000, public_key=OTHERS[0])
        stored = self.recorder.submit_poc_validation(batch, batch_id="", node_id="node1", via=Via.WEBSOCKET)
        self.failureResultOf(stored, StoreClosedError)

    def test_two_stages_are_remembered(self) -> None:
        for height in (1000, 2000, 3000):
            self.hand_out((0, "node1"), height=height)
        rows = self.look("SELECT height FROM handed_out ORDER BY height")
        self.assertEqual(rows, [(2000,), (3000,)])
        self.verdict(height=1000)
        self.assertEqual(self.answered, [])
        self.stage(2000)
        self.verdict(height=2000)
        self.assertEqual(self.answered, [OTHERS[0]])

    def test_too_many_are_refused(self) -> None:
        self.begin(max_messages=1)
        self.look_again()
        self.hand_out((0, "node1"))
        self.verdict(1)
        batch = validated_batch(block_height=1000, public_key=Key(4).public.hex())
        stored = self.recorder.submit_poc_validation(batch, batch_id="", node_id="node1", via=Via.WEBSOCKET)
        self.clock.advance(0)
        self.failureResultOf(stored, QuotaError)
        self.verdict(0)
        self.assertEqual(self.answered, [OTHERS[0]])
