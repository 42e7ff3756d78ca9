"""Messages to send on a real database, and what becomes of them there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import gatherResults

from dapi.database import Database
from dapi.messages import Kind, Via, content_id
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.submission.choice import Room
from dapi.submission.rows import Message
from dapi.submission.submissions import Submissions
from tests.batches import generated_batch, validated_batch
from tests.earlier_verdicts import put_earlier_verdict
from tests.submissions import choose, put_in_flight
from tests.unit.database.store_tools import StoreTestCase

ROOM = 100_000
HASH = "AB" * 32
OTHER = "CD" * 32


class SubmissionsTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin(self.open_database())

    def begin(self, database: Database) -> None:
        self.database = database
        self.outbox = Outbox(self.clock, database, now=self.clock.seconds)
        self.recorder = CosmosMessageClient(self.outbox)
        self.submissions = Submissions(database, self.outbox, now=self.clock.seconds)
        self.wait(self.outbox.counts())

    def begin_anew(self) -> None:
        """As another process would."""
        self.close_database(self.database)
        self.begin(self.open_database())

    def wait(self, deferred: Any) -> Any:
        return self.clock.wait_for(deferred)

    def record(self, *nonces: int, height: int = 10) -> str:
        batch = generated_batch(block_height=height, nonces=list(nonces), dist=[0.5] * len(nonces))
        batch_id = content_id(batch)
        self.wait(self.recorder.submit_poc_batch(batch, batch_id=batch_id, node_id="node1", via=Via.HTTP))
        return batch_id

    def record_verdict(self, *, height: int = 10, **changes: Any) -> str:
        verdict = validated_batch(block_height=height, **changes)
        self.wait(put_earlier_verdict(self.outbox, verdict))
        return content_id(verdict)

    def next(self, *, height: int = 11, max_bytes: int = ROOM, max_nonces: int = 1000, **room: Any) -> list[Message]:
        messages: list[Message] = self.wait(choose(self.submissions, height, Room(max_bytes, max_nonces, **room)))
        return messages

    def send(self, messages: list[Message], tx_hash: str = HASH, timeout_ns: int = 7) -> list[Message]:
        under_way = [message.in_flight() for message in messages]
        self.wait(put_in_flight(self.submissions, under_way, tx_hash, timeout_ns, 11))
        return under_way

    def damage(self, batch_id: str) -> None:
        """Change the last byte, which is within the node's name or a distance: protobuf decodes it all the same."""
        # No checksum of SQLite's own would tell.
        self.execute(
            self.database,
            "UPDATE unfinished SET message = CAST(substr(message, 1, length(message) - 1) || x'7a' AS BLOB)"
            " WHERE batch_id = ?",
            batch_id,
        )

    def bring(self, node_id: str, number: int, size: int) -> None:
        """Store so many messages of a node, each of so many bytes."""
        came = self.look("SELECT count(*) FROM unfinished")[0][0]
        entries = [
            OutboxEntry(f"{node_id}-{came + each}", Kind.GENERATED, node_id, 10, 1, Via.HTTP, bytes(size))
            for each in range(number)
        ]
        self.wait(gatherResults([self.outbox.put(entry) for entry in entries]))

    def steps(self, act: Callable[[], object]) -> int:
        """How many steps of its virtual machine SQLite takes on the writer's connection for what ``act`` does."""
        # Later versions of SQLite count what it takes to prepare a statement, too: the first time only.
        self.next()
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        self.wait(self.database.write(lambda connection: connection.set_progress_handler(count, 1)))
        act()
        self.wait(self.database.write(lambda connection: connection.set_progress_handler(None, 1)))
        return steps

    def ids(self, messages: list[Message]) -> list[str]:
        return [MsgSubmitPocBatch.FromString(message.body).batch_id for message in messages]

    def counts(self) -> dict[str, int]:
        """The counts that are not 0; those that are kept must be those on disk."""
        kept = self.wait(self.outbox.counts())
        anew = Outbox(self.clock, self.database)
        self.assertEqual(kept, self.wait(anew.counts()))
        by_kind = self.wait(self.outbox.counts_by_kind())
        self.assertEqual(+by_kind, +self.wait(anew.counts_by_kind()))
        return {state: number for state, number in kept.items() if number}

    def rows(self) -> dict[str, Any]:
        return {row.batch_id: row for row in self.wait(self.outbox.batches(limit=1000)).batches}
