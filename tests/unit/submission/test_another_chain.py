"""A database of one chain begins afresh with another one: nothing of the old chain is sent, or counts, there."""

from __future__ import annotations

from dapi.chain.identity import contradiction
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc_answers import BlockInfo
from dapi.errors import UnknownBatchError
from dapi.messages import State
from dapi.orchestration.seed import seed_entry
from dapi.orchestration.stages import StageBook
from dapi.phases.phases import EpochParameters, regular_stage
from tests.logs import log_of
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase

SECOND_NS = 10**9


class AnotherChainTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)

    @property
    def stages(self) -> StageBook:
        return StageBook(self.database)

    def enter(self, chain_id: str, height: int = 10, block_hash: str = "", other: str | None = None) -> None:
        """Enter a chain as ChainIdentity does."""
        block = BlockInfo(chain_id, height, height * SECOND_NS, block_hash)
        known = self.wait(self.submissions.known_block())
        if known is not None and other is None:
            other = contradiction(known, block)
        self.wait(self.submissions.enter_chain(block, other))

    def put_seed(self) -> int:
        """How often the seed of this epoch is kept now."""
        seen: int = self.wait(self.outbox.put(seed_entry(SigningKey(b"\1" * 32), 1, 10))).seen
        return seen

    def test_one_that_is_of_no_chain_yet_is_of_the_first_one(self) -> None:
        self.record(1)
        self.assertIsNone(self.wait(self.submissions.known_block()))
        self.enter("old")
        self.begin_anew()
        self.enter("old", 11)
        self.assertEqual(self.counts(), {"stored": 1})
        self.assertEqual(self.log.events, [])

    def test_what_is_not_finished_expires_whatever_its_state(self) -> None:
        self.enter("old")
        in_flight = self.record(1)
        self.send(self.next())
        in_parts = self.record(*range(10, 30))
        self.send(self.next(max_nonces=10)[:1], "CD" * 32, 8)
        stored = self.record(2)
        self.begin_anew()
        self.enter("new")
        self.assertEqual(self.counts(), {"expired": 3})
        rows = self.rows()
        self.assertEqual(set(rows), {f"old/{batch_id}" for batch_id in (in_flight, in_parts, stored)})
        self.assertEqual({row.reason for row in rows.values()}, {"it is of another chain: old"})
        self.assertEqual(self.next(), [])
        self.assertEqual(self.wait(self.submissions.transactions_in_flight()), [])
        self.assertEqual(self.wait(self.submissions.last_timeout()), 0)
        lines = self.log.lines(containing="its chain id is new, not old: 3 messages for old are set apart")
        self.assertEqual(len(lines), 1)

    def test_seeds_verdicts_and_stages_begin_afresh(self) -> None:
        self.enter("old")
        self.put_seed()
        verdict = self.record_verdict()
        while messages := self.send(self.next()):
            self.wait(self.submissions.confirm(messages, HASH, 12))
        self.assertEqual(self.put_seed(), 2)
        self.wait(self.stages.begin(regular_stage(EpochParameters(400, 60, 5, 5, 20), 1, 10), 3))
        self.assertEqual(len(self.wait(self.stages.participants_answered(10))), 1)
        self.begin_anew()
        self.enter("new")
        self.assertEqual(self.put_seed(), 1)
        self.assertEqual(self.wait(self.stages.latest()), [])
        self.assertEqual(self.wait(self.stages.participants_answered(10)), set())
        self.assertEqual(self.record_verdict(), verdict)
        self.assertEqual(self.counts(), {"stored": 2, "confirmed": 2})

    def test_what_failed_is_not_sent_again(self) -> None:
        self.enter("old")
        batch_id = self.record(1)
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "blocked"))
        self.begin_anew()
        self.enter("new")
        self.assertEqual(self.counts(), {"expired": 1})
        self.assertRaises(UnknownBatchError, self.wait, self.outbox.retry(f"old/{batch_id}"))

    def test_twice_another_one(self) -> None:
        for chain_id in ("first", "second", "third"):
            self.enter(chain_id)
            self.record(1)
            self.begin_anew()
        self.assertEqual({row.state for row in self.rows().values()}, {State.EXPIRED, State.STORED})
        self.assertEqual(len(self.rows()), 3)

    def test_again_and_again_under_the_same_id(self) -> None:
        for block_hash in ("ABCDEF0123", "1234567890", "FEDCBA9876"):
            self.enter("test", 10, block_hash)
            self.put_seed()
            self.record(1)
            self.begin_anew()
        self.assertEqual(self.counts(), {"stored": 2, "expired": 4})
        apart = {row.batch_id.partition("/")[0] for row in self.rows().values() if row.state is State.EXPIRED}
        self.assertEqual(apart, {"test@abcdef01", "test@12345678"})

    def test_the_block_that_is_kept(self) -> None:
        self.enter("test", 10, "AB")
        kept = BlockInfo("test", 30, 7, "CD")
        self.wait(self.submissions.keep_block(kept))
        self.begin_anew()
        self.assertEqual(self.wait(self.submissions.known_block()), kept)
