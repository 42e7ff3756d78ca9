"""A batch is compared with the run of its stage: what is of another one is told, and shown with the reason."""

from __future__ import annotations

from typing import Any

from dapi.messages import Via
from dapi.messages.content_id import run_id
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.ledger import NotOfTheirStage, not_of_their_stage
from tests.batches import PUBLIC_KEY, generated_batch, validated_batch
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
        self, node_id: str = "node1", *, knows_stages: bool = True, has_others_nonces: bool = False, **changes: Any
    ) -> str:
        batch = generated_batch(**{"block_hash": "AB", **changes})
        recorder = CosmosMessageClient(self.outbox, knows_stages=knows_stages)
        batch_id = f"{changes}{node_id}{knows_stages}{has_others_nonces}"
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
        return self.clock.wait_for(not_of_their_stage(self.database))

    def test_what_is_of_its_stage(self) -> None:
        right = self.keep()
        self.stage(1000, RIGHT)
        self.assertEqual((self.reasons(), self.told()), ({right: None}, []))

    def test_what_is_of_another_run(self) -> None:
        self.stage(1000, RIGHT)
        foreign = [self.keep(block_hash="ab"), self.keep(public_key="02aa"), self.keep("node2", block_hash="ab")]
        right = self.keep()
        self.assertEqual(self.reasons(), {right: None, **dict.fromkeys(foreign, FOREIGN)})
        told = [NotOfTheirStage(1000, "node1", 2), NotOfTheirStage(1000, "node2", 1)]
        self.assertEqual(sorted(self.told()), told)

    def test_what_has_others_nonces(self) -> None:
        self.stage(1000, RIGHT)
        foreign = [self.keep(has_others_nonces=True, knows_stages=knows_stages) for knows_stages in (True, False)]
        right = self.keep()
        reason = "not sent: its nonces are not those of its node"
        self.assertEqual(self.reasons() | {right: None}, {right: None, foreign[0]: reason, foreign[1]: reason})
        self.assertEqual(self.told(), [NotOfTheirStage(1000, "node1", 2, has_others_nonces=True)])

    def test_what_is_of_no_stage_becomes_real_with_it(self) -> None:
        self.stage(1000, RIGHT)
        early = [self.keep(block_height=height) for height in (1, 2, 2000)]
        self.assertEqual(self.reasons(), dict.fromkeys(early, NO_SUCH_STAGE))
        self.assertEqual(self.told(), [NotOfTheirStage(None, "node1", 3)])
        self.stage(2000, None)
        self.assertEqual(self.reasons()[early[2]], "waits for the block hash of its stage")
        self.assertEqual(self.told(), [NotOfTheirStage(None, "node1", 2)])
        self.stage(2000, RIGHT)
        self.assertEqual(self.reasons()[early[2]], None)

    def test_a_verdict_is_compared_with_the_height(self) -> None:
        recorder = CosmosMessageClient(self.outbox, knows_stages=True)
        for height in (1000, 2000):
            verdict = validated_batch(block_height=height)
            self.clock.wait_for(recorder.submit_poc_validation(verdict, batch_id="", node_id=None, via=Via.HTTP))
        self.stage(1000, None)
        self.assertEqual(sorted(str(reason) for reason in self.reasons().values()), ["None", NO_SUCH_STAGE])
        self.assertEqual(self.told(), [NotOfTheirStage(None, None, 1)])

    def test_without_stages_nothing_is_compared(self) -> None:
        batch_id = self.keep(knows_stages=False)
        self.stage(1000, "another")
        self.assertEqual((self.reasons(), self.told()), ({batch_id: None}, []))

    def test_a_reason_of_another_kind_is_shown(self) -> None:
        batch_id = self.keep()
        self.stage(1000, RIGHT)
        change = "UPDATE unfinished SET reason = 'dropped'"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(change)))
        self.assertEqual(self.reasons(), {batch_id: "dropped"})
