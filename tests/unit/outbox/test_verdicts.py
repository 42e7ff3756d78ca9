"""One verdict on a participant in a stage: what comes later is counted, whatever it says, and after an upgrade too."""

from __future__ import annotations

from typing import Any

from dapi.database.schema import SCHEMA_VERSIONS
from dapi.messages import Receipt, State, Via, content_id
from dapi.messages.addresses import address_of
from dapi.messages.inference_pb2 import MsgSubmitPocValidation
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from tests.batches import PUBLIC_KEY, validated_batch
from tests.chain_tools import Key
from tests.earlier_verdicts import put_earlier_verdict
from tests.unit.outbox.outbox_case import OutboxTestCase

PARTICIPANT = address_of(PUBLIC_KEY)
OTHER = Key(2)
EARLIER_VERSION = 2


class VerdictTestCase(OutboxTestCase):
    def judge(self, **changes: Any) -> Receipt:
        verdict = validated_batch(**changes)
        recorder = CosmosMessageClient(self.outbox)
        return self.clock.wait_for(
            recorder.submit_poc_validation(verdict, batch_id=content_id(verdict), node_id="node1", via=Via.WEBSOCKET)
        )

    def kept(self) -> list[tuple[str, int]]:
        """Which verdict each message is (by the number of its invalid nonces), and how often it came."""
        query = "SELECT message, seen FROM unfinished UNION ALL SELECT message, seen FROM finished"
        rows = [(MsgSubmitPocValidation.FromString(message), seen) for message, seen in self.look(query)]
        return sorted((f"{row.participant_address[-4:]} {row.n_invalid}", seen) for row, seen in rows)


class SecondVerdictTests(VerdictTestCase):
    def test_the_first_that_is_on_disk_is_kept(self) -> None:
        self.assertEqual(self.judge(n_invalid=1), Receipt(f"verdict-1000-{PARTICIPANT}", 1))
        self.assertEqual(self.judge(n_invalid=2, dist=[0.75, 1.25]).seen, 2)
        self.assertEqual(self.judge(n_invalid=1).seen, 3)
        self.assertEqual(self.kept(), [(f"{PARTICIPANT[-4:]} 1", 3)])

    def test_two_in_one_commit(self) -> None:
        recorder = CosmosMessageClient(self.outbox)
        stored = [
            recorder.submit_poc_validation(validated_batch(n_invalid=number), batch_id="", node_id=None, via=Via.HTTP)
            for number in (1, 2)
        ]
        self.assertEqual([self.clock.wait_for(each).seen for each in stored], [1, 2])
        self.assertEqual(self.kept(), [(f"{PARTICIPANT[-4:]} 1", 2)])

    def test_whatever_became_of_the_first(self) -> None:
        for height, state in enumerate((State.CONFIRMED, State.FAILED, State.EXPIRED), start=1):
            self.finish(self.judge(block_height=height).batch_id, state)
            self.assertEqual(self.judge(block_height=height, n_invalid=1).seen, 2)
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(0,)])

    def test_other_participants_and_stages(self) -> None:
        self.judge()
        self.assertEqual(self.judge(public_key=OTHER.public.hex()).seen, 1)
        self.assertEqual(self.judge(block_height=1001).seen, 1)
        self.assertEqual(len(self.kept()), 3)


class UpgradeTests(VerdictTestCase):
    """A database of a version that kept each content of a verdict."""

    def put_earlier(self, state: State = State.STORED, **changes: Any) -> None:
        verdict = validated_batch(**changes)
        self.clock.wait_for(put_earlier_verdict(self.outbox, verdict))
        values = {"batch_id": content_id(verdict), "state": state}
        if state is State.IN_FLIGHT:
            self.change("UPDATE unfinished SET state = :state, tx_hash = 'AB' WHERE batch_id = :batch_id", values)
        elif state is not State.STORED:
            ((message,),) = self.look(f"SELECT message FROM unfinished WHERE batch_id = '{content_id(verdict)}'")
            self.finish(content_id(verdict), state)
            values["message"] = message
            self.change("UPDATE finished SET message = :message WHERE batch_id = :batch_id", values)

    def change(self, statement: str, values: dict[str, Any]) -> None:
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(statement, values)))

    def upgrade(self) -> None:
        """Have what leads to the next version done again."""
        script = SCHEMA_VERSIONS[EARLIER_VERSION]
        self.clock.wait_for(self.database.write(lambda connection: connection.executescript(script)))
        self.restart()

    def test_what_comes_after_the_upgrade_is_doubled(self) -> None:
        for height, state in enumerate(State, start=1):
            self.put_earlier(state, block_height=height, n_invalid=1)
        self.upgrade()
        for height in range(1, 1 + len(State)):
            self.assertEqual(self.judge(block_height=height, n_invalid=2).seen, 2)
        self.assertEqual(len(self.kept()), len(State))

    def test_of_two_the_one_closest_to_the_chain_counts(self) -> None:
        states = [State.STORED, State.FAILED, State.IN_FLIGHT, State.CONFIRMED]
        for height in range(1, 1 + len(states)):
            for number, state in enumerate(states[:height]):
                self.put_earlier(state, block_height=height, n_invalid=number)
        self.upgrade()
        query = "SELECT height, state FROM {} WHERE batch_id LIKE 'verdict-%'"
        named = [row for table in ("unfinished", "finished") for row in self.look(query.format(table))]
        self.assertEqual(sorted(named), [(1, "stored"), (2, "stored"), (3, "in_flight"), (4, "confirmed")])
        # One that was never sent, and never will be.
        self.assertEqual(self.look("SELECT height FROM unfinished WHERE state = 'stored'"), [(1,), (2,)])

    def test_participants_stay_apart(self) -> None:
        for key in (PUBLIC_KEY, OTHER.public.hex()):
            self.put_earlier(public_key=key)
        self.upgrade()
        ids = [batch_id for (batch_id,) in self.look("SELECT batch_id FROM unfinished ORDER BY seq")]
        self.assertEqual(ids, [f"verdict-1000-{address}" for address in (PARTICIPANT, OTHER.address)])
