"""A stage is remembered as it was first seen, also over a restart."""

from dapi.chain.phases import EpochParameters, PocStage, regular_stage
from dapi.chain.stages import StageBook, StageRecord
from tests.unit.store_tools import StoreTestCase


def stage_at(height: int, *, stage_duration: int = 10) -> PocStage:
    return regular_stage(EpochParameters(40, stage_duration, 2, 2, 6, 1), 1, height)


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
        self.clock.wait_for(self.book.handed_out(100))
        self.close_database(self.database)
        again = StageBook(self.open_database())
        self.assertEqual(
            self.clock.wait_for(again.latest()),
            [StageRecord(stage_at(140), 4, False), StageRecord(stage_at(100), 3, True)],
        )
        self.assertEqual(self.clock.wait_for(again.latest(1)), [StageRecord(stage_at(140), 4, False)])
