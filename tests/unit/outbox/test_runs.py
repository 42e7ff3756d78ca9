"""A batch is compared with the run of its stage: what is of another one is told, and shown with the reason."""

from __future__ import annotations

from typing import Any

from dapi.messages import Kind, Via
from dapi.messages.content_id import run_id
from dapi.outbox.comparison import Comparison, NotOfTheirStage
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from tests.batches import PUBLIC_KEY, generated_batch
from tests.unit.outbox.outbox_case import OutboxTestCase

FOREIGN = "not sent: its block hash or public key is not that of the stage"
NO_SUCH_STAGE = "not sent: the chain has told of no such stage"
RIGHT = run_id("AB", PUBLIC_KEY)


class RunIdTests(OutboxTestCase):
    def test_any_difference_is_another_run(self) -> None:
        runs = [run_id(*both) for both in (("AB", "02"), ("ab", "02"), ("AB", "03"), ("AB 0", "2"), ("AB", "0 2"))]
        self.assertEqual(len(set(runs)), len(runs))
        self.assertEqual({len(run) for run in runs}, {16})


class RunTests(OutboxTestCase):
    def keep(
        self, node_id: str = "node1", *, is_compared: bool = True, has_others_nonces: bool = False, **changes: Any
    ) -> str:
        batch = generated_batch(**{"block_hash": "AB", **changes})
        comparison = Comparison(self.clock, self.database) if is_compared else None
        recorder = CosmosMessageClient(self.outbox, comparison=comparison)
        batch_id = f"{changes}{node_id}{is_compared}{has_others_nonces}"
        return self.clock.wait_for(
            recorder.submit_poc_batch(
                batch, batch_id=batch_id, node_id=node_id, via=Via.HTTP, has_others_nonces=has_others_nonces
            )
        ).batch_id

    def stage(self, height: int, run: str | None) -> None:
        statement = "INSERT OR REPLACE INTO stages (height, stage, node_count, run) VALUES (?, '', 2, ?)"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(statement, (height, run))))

    def reasons(self) -> dict[str, str | None]:
        return {row.batch_id: row.reason for row in self.batches().batches}

    def told(self) -> list[NotOfTheirStage]:
        return self.clock.wait_for(Comparison(self.clock, self.database).look())

    def some(self, height: int | None, node_id: str, messages: int) -> NotOfTheirStage:
        (size,) = self.look("SELECT DISTINCT length(message) FROM unfinished")[0]
        return NotOfTheirStage(height, node_id, Kind.GENERATED, messages, messages * size)

    def test_what_is_of_its_stage(self) -> None:
        right = self.keep()
        self.stage(1000, RIGHT)
        self.assertEqual((self.reasons(), self.told()), ({right: None}, []))

    def test_what_is_of_another_run(self) -> None:
        self.stage(1000, RIGHT)
        foreign = [self.keep(block_hash="ab"), self.keep(public_key="02aa"), self.keep("node2", block_hash="ab")]
        right = self.keep()
        self.assertEqual(self.reasons(), {right: None, **dict.fromkeys(foreign, FOREIGN)})
        told = [(each.height, each.node_id, each.kind, each.messages) for each in sorted(self.told())]
        self.assertEqual(told, [(1000, "node1", Kind.GENERATED, 2), (1000, "node2", Kind.GENERATED, 1)])

    def test_what_has_others_nonces(self) -> None:
        self.stage(1000, RIGHT)
        foreign = [self.keep(has_others_nonces=True, is_compared=is_compared) for is_compared in (True, False)]
        right = self.keep()
        reason = "not sent: its nonces are not those of its node"
        self.assertEqual(self.reasons() | {right: None}, {right: None, foreign[0]: reason, foreign[1]: reason})
        (told,) = self.told()
        self.assertEqual((told.height, told.node_id, told.messages, told.has_others_nonces), (1000, "node1", 2, True))

    def test_what_is_of_no_stage_becomes_real_with_it(self) -> None:
        self.stage(1000, RIGHT)
        early = [self.keep(block_height=height) for height in (1001, 1002, 2000)]
        self.assertEqual(self.reasons(), dict.fromkeys(early, NO_SUCH_STAGE))
        self.assertEqual(self.told(), [self.some(None, "node1", 3)])
        self.stage(2000, None)
        self.assertEqual(self.reasons()[early[2]], "waits for the block hash of its stage")
        self.assertEqual(self.told(), [self.some(None, "node1", 2)])
        self.stage(2000, RIGHT)
        self.assertEqual(self.reasons()[early[2]], None)

    def test_only_the_latest_50_stages_count(self) -> None:
        for height in range(100, 151):
            self.stage(height, RIGHT)
        self.keep(block_height=101)
        self.keep(block_height=100)
        self.assertEqual(self.told(), [self.some(None, "node1", 1)])

    def test_without_stages_nothing_is_compared(self) -> None:
        batch_id = self.keep(is_compared=False)
        self.stage(1000, "another")
        self.assertEqual((self.reasons(), self.told()), ({batch_id: None}, []))

    def test_a_reason_of_another_kind_is_shown(self) -> None:
        batch_id = self.keep()
        self.stage(1000, RIGHT)
        change = "UPDATE unfinished SET reason = 'dropped'"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(change)))
        self.assertEqual(self.reasons(), {batch_id: "dropped"})
