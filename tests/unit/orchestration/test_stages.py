"""A stage is remembered as it was first seen, also over a restart."""

from dapi.messages import Kind
from dapi.messages.addresses import address_of
from dapi.orchestration.stages import StageBook, StageRecord
from dapi.phases.phases import EpochParameters, PocStage, regular_stage
from tests.chain_tools import Key
from tests.unit.database.store_tools import StoreTestCase
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase


def stage_at(height: int, *, stage_duration: int = 10) -> PocStage:
    return regular_stage(EpochParameters(40, stage_duration, 2, 2, 6), 1, height)


class StageBookTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.book = StageBook(self.database)

    def begin(self, stage: PocStage, node_count: int) -> StageRecord:
        return self.clock.wait_for(self.book.begin(stage, node_count))

    def test_node_count_is_fixed_when_it_begins(self) -> None:
        first = self.begin(stage_at(100), 3)
        self.assertEqual(first, StageRecord(stage_at(100), 3, False))
        self.assertEqual(self.begin(stage_at(100), 4), first)
        self.assertEqual(self.begin(stage_at(140), 4).node_count, 4)

    def test_governed_windows_are_those_of_now(self) -> None:
        self.begin(stage_at(100), 3)
        longer = stage_at(100, stage_duration=20)
        self.assertEqual(self.begin(longer, 5), StageRecord(longer, 3, False))

    def test_all_of_it_survives_a_restart(self) -> None:
        self.begin(stage_at(100), 3)
        self.begin(stage_at(140), 4)
        self.clock.wait_for(self.book.record_handed_out(100))
        self.close_database(self.database)
        again = StageBook(self.open_database())
        self.assertEqual(
            self.clock.wait_for(again.latest()),
            [StageRecord(stage_at(140), 4, False), StageRecord(stage_at(100), 3, True)],
        )
        self.assertEqual(self.clock.wait_for(again.latest(1)), [StageRecord(stage_at(140), 4, False)])

    def test_a_row_that_the_disk_has_damaged_hides_no_other(self) -> None:
        for height in (100, 140):
            self.begin(stage_at(height), 3)
        self.execute(self.database, "UPDATE stages SET stage = replace(stage, 'height', 'heighs') WHERE height = 140")
        latest = self.clock.wait_for(self.book.latest())
        self.assertEqual(latest, [StageRecord(stage_at(100), 3, False)])
        # The chain tells of it again at the next turn.
        self.begin(stage_at(140), 3)
        self.assertEqual(len(self.clock.wait_for(self.book.latest())), 2)


class AnsweredTests(SubmissionsTestCase):
    """Who was validated in a stage is known from the verdicts that are kept, wherever they are on their way."""

    def verdict_on(self, seed: int, height: int = 100) -> str:
        """Keep a verdict, and return the address of whom it is on."""
        public_key = Key(seed).public.hex()
        self.record_verdict(height=height, public_key=public_key)
        return address_of(public_key)

    def test_all_but_those_that_failed(self) -> None:
        confirmed, failed = self.verdict_on(1), self.verdict_on(2)
        first, second = self.send(self.next(height=101))
        self.wait(self.submissions.confirm([first], HASH, 102))
        self.wait(self.submissions.fail([second], HASH, "no"))
        expired = self.verdict_on(3)
        self.wait(self.submissions.expire(100, Kind.VALIDATED, "late"))
        under_way = self.verdict_on(4)
        self.send(self.next(height=101), "EF" * 32)
        stored = self.verdict_on(5)
        self.verdict_on(6, height=140)
        self.record(1, 2, height=100)
        answered = self.wait(StageBook(self.database).participants_answered(100))
        self.assertEqual(answered, {confirmed, under_way, stored})
        self.assertTrue({failed, expired}.isdisjoint(answered))

    def test_one_that_the_disk_has_damaged_is_none(self) -> None:
        self.verdict_on(1)
        self.execute(self.database, "UPDATE unfinished SET message = x'12ff'")
        whole = self.verdict_on(2)
        self.assertEqual(self.wait(StageBook(self.database).participants_answered(100)), {whole})
