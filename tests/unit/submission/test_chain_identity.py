"""Whether the chain that is followed is the database's: asked once, and again when blocks were missed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.errors import ChainPrunedError, ChainUnavailableError
from dapi.orchestration.stages import StageBook
from dapi.phases.phases import ConfirmationEvent, EpochParameters, confirmation_stage, regular_stage
from dapi.submission.chain_identity import ChainIdentity
from tests.logs import log_of
from tests.unit.submission.submissions_case import SubmissionsTestCase
from tests.unit.submission.submitter_case import status_at


class OneBlockRpc(ChainRpc):
    """A chain at ``head``; each block has the hash ``block_hash``."""

    def __init__(self) -> None:
        self.head = status_at(10)
        self.block_hash = "AB"
        self.error: Exception | None = None
        self.asked: list[int] = []

    def status(self) -> Deferred[ChainStatus]:
        return succeed(self.head)

    def block(self, height: int) -> Deferred[BlockInfo]:
        self.asked.append(height)
        if self.error is not None:
            return fail(self.error)
        return succeed(status_at(height, block_hash=self.block_hash).block)


class ChainIdentityTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)
        self.chain = OneBlockRpc()
        self.others: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.begin_anew()
        self.identity = ChainIdentity(self.chain, self.submissions, self.others.append)

    def enter(self, height: int, **changes: Any) -> None:
        self.chain.head = status_at(height, **changes)
        self.wait(Deferred.fromCoroutine(self.identity.enter(self.chain.head)))

    def known(self) -> BlockInfo:
        known: BlockInfo = self.wait(self.submissions.known_block())
        return known

    def test_the_first_block_is_kept_and_then_one_of_twenty(self) -> None:
        for height in range(10, 40):
            self.enter(height)
        self.assertEqual(self.known(), status_at(30).block)
        self.assertEqual(self.chain.asked, [])

    def test_the_same_chain_after_a_restart(self) -> None:
        self.enter(10)
        self.record(1)
        self.restart()
        self.enter(50)
        self.assertEqual((self.chain.asked, self.known(), self.counts()), ([10], status_at(50).block, {"stored": 1}))

    def test_another_block_at_a_known_height(self) -> None:
        self.enter(10)
        self.record(1)
        self.restart()
        self.chain.block_hash = "CD"
        self.enter(50)
        self.assertEqual(self.counts(), {"expired": 1})
        reason = "this is another chain, its block 10 has the hash CD, not AB"
        line = f"{reason}: 1 messages for chain@ab are set apart, and are not sent"
        self.assertEqual(self.log.lines(LogLevel.critical), [line])
        self.assertEqual((self.known(), self.others), (status_at(50).block, []))

    def test_a_height_that_fell_while_the_time_rose(self) -> None:
        self.enter(100)
        self.record(1)
        self.restart()
        self.enter(3, block_time_ns=status_at(200).block_time_ns)
        self.assertEqual((self.counts(), self.chain.asked), ({"expired": 1}, []))
        self.assertEqual(len(self.log.lines(containing="it began anew: 1 messages")), 1)

    def stage(self, height: int, block_hash: str, *, is_confirmation: bool = False) -> None:
        event = ConfirmationEvent(1, trigger_height=height, generation_start=height + 1, seed_block_hash="ab")
        parameters = EpochParameters(400, 60, 5, 5, 20)
        stage = confirmation_stage(parameters, event) if is_confirmation else regular_stage(parameters, 1, height)
        book = StageBook(self.database)
        self.wait(book.begin(stage, 3))
        self.wait(book.record_run(stage.height, "run", block_hash))

    def test_a_lie_about_the_height_gives_nothing_up(self) -> None:
        self.enter(20)
        self.stage(15, "ab")
        self.stage(18, "ef", is_confirmation=True)
        self.record(1)
        # One answer in which the height was another, but not the time.
        self.enter(10**9, block_time_ns=status_at(21).block_time_ns)
        self.assertEqual(self.known().height, 10**9)
        self.restart()
        self.enter(22)
        self.assertEqual((self.counts(), self.known().height), ({"stored": 1}, 22))
        self.assertEqual(self.chain.asked, [20, 15])
        (line,) = self.log.lines(LogLevel.warn, "it is the same chain all the same")
        reason = "it is at block 22, which is younger than our block 1000000000: it began anew"
        self.assertTrue(line.endswith(f"since it has the block of our latest stage: {reason}"), line)

    def test_a_chain_that_began_anew_has_not_the_block_of_our_stage(self) -> None:
        self.enter(100)
        self.stage(15, "CD")
        self.record(1)
        self.restart()
        self.enter(30, block_time_ns=status_at(200).block_time_ns)
        self.assertEqual((self.counts(), self.chain.asked), ({"expired": 1}, [15]))

    def test_nor_has_one_that_is_not_as_high_yet_or_that_is_pruned_or_of_another_id(self) -> None:
        time_ns = status_at(200).block_time_ns
        for height, changes in ((15, {}), (30, {}), (300, {"chain_id": "another"})):
            self.enter(100)
            self.stage(15, "AB")
            self.record(1)
            self.restart()
            self.chain.error = ChainPrunedError("lowest height is 40")
            self.enter(height, block_time_ns=time_ns, **changes)
            self.assertEqual(+Counter(self.counts())["stored"], 0)
            self.chain.error = None
            self.restart()
            self.wait(self.submissions.enter_chain(status_at(1).block, "it is a test"))
            self.restart()

    def test_a_height_that_fell_with_the_time_has_to_rise_again(self) -> None:
        self.enter(100)
        self.record(1)
        self.restart()
        self.assertRaises(ChainUnavailableError, self.enter, 90)
        self.enter(101)
        self.assertEqual(self.counts(), {"stored": 1})

    def test_a_block_that_no_node_has_any_more_tells_nothing(self) -> None:
        self.enter(10)
        self.record(1)
        self.restart()
        self.chain.error = ChainPrunedError("lowest height is 40")
        self.enter(50)
        self.assertEqual(self.counts(), {"stored": 1})
        line = "block 10, which tells one chain from another, is not there any more: lowest height is 40"
        self.assertEqual(self.log.lines(LogLevel.info, "tells one chain"), [line])

    def test_what_cannot_be_asked_now_is_asked_again(self) -> None:
        self.enter(10)
        self.restart()
        self.chain.error = ChainUnavailableError("no answer")
        self.assertRaises(ChainUnavailableError, self.enter, 50)
        self.chain.error, self.chain.block_hash = None, "CD"
        self.enter(50)
        self.assertEqual(len(self.log.lines(containing="this is another chain")), 1)

    def test_a_database_that_knows_only_the_id(self) -> None:
        self.wait(self.submissions.enter_chain(BlockInfo("chain", 0, 0, ""), None))
        self.enter(50)
        self.assertEqual((self.chain.asked, self.known()), ([], status_at(50).block))

    def test_after_missed_blocks_our_latest_one_is_looked_at_again(self) -> None:
        self.enter(10)
        self.enter(12)
        self.assertEqual(self.chain.asked, [])
        self.enter(15)
        self.assertEqual(self.chain.asked, [12])
        self.chain.error = ChainPrunedError("lowest height is 40")
        self.enter(50)
        self.assertEqual(self.others, [])

    def test_another_chain_at_the_very_next_block(self) -> None:
        self.enter(10)
        with self.assertRaisesRegex(ChainUnavailableError, "^another one: its block 11 is older than our block 10$"):
            self.enter(11, block_time_ns=1)
        self.assertEqual((self.others, self.chain.asked), (["its block 11 is older than our block 10"], []))

    def test_a_head_that_is_not_new_changes_nothing(self) -> None:
        self.enter(10)
        self.enter(9, chain_id="another")
        self.assertEqual((self.others, self.known()), ([], status_at(10).block))

    def test_another_chain_after_missed_blocks(self) -> None:
        self.enter(10)
        self.chain.block_hash = "CD"
        for _ in range(2):
            self.assertRaises(ChainUnavailableError, self.enter, 50)
        self.assertEqual(self.others, ["its block 10 has the hash CD, not AB"] * 2)
        # It is not entered: that is for those who know nothing of the old one.
        self.assertEqual(self.known(), status_at(10).block)
