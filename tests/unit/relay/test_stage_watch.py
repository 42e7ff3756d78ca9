"""What is wrong with a stage is said in words while something can be done."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.api_answers import StageKind, StageWindow
from dapi.relay.chain_questions import Votes
from dapi.relay.stage_watch import Seen, StageWatch, Trouble
from dapi.relay.watched_stage import WatchedStage

STAGE = StageWindow(100, 100, 160, 165, 185)
NODES = frozenset({"node1", "node2", "node3"})


class StageWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.watch = StageWatch(WatchedStage.of(STAGE, "m"), 0)
        self.now = 0.0

    def see(self, height: int, stored: int | None, committed: int | None = None, **more: Any) -> dict[Trouble, str]:
        """Look at a block, 5 s after the one before."""
        self.now += 5.0
        seen = {"generating": NODES, **more}
        self.watch.see(Seen(now=self.now, height=height, stored=stored, committed=committed, **seen))
        return self.watch.troubles()

    def test_a_healthy_stage(self) -> None:
        for height in range(100, 161):
            stored = (height - 100) * 1000
            self.assertEqual(self.see(height, stored, max(0, stored - 1000)), {})
        self.see(161, 60_000, 60_000)
        for height in range(161, 185):
            self.assertEqual(self.see(height, None, 60_000, has_weights=True), {})
        status = self.watch.status()
        self.assertEqual((status["stored_at_the_end"], status["committed"]), (60_000, 60_000))
        self.assertAlmostEqual(status["share_at_a_third"], 1 / 3, places=2)

    def test_silent_while_nodes_generate(self) -> None:
        for height in range(100, 106):
            self.assertEqual(self.see(height, None), {})
        self.assertIn("while 3 nodes generate", self.see(106, None)[Trouble.SILENT])
        self.assertEqual(self.see(107, 5), {}, "it is over as soon as one is stored")

    def test_no_node_generates_and_nothing_comes(self) -> None:
        for height in range(100, 120):
            self.assertEqual(self.see(height, None, generating=frozenset()), {})

    def test_a_node_gone_quiet(self) -> None:
        stored = 0
        for height in range(100, 130):
            # It writes each 5 s, which a look now and then misses.
            stored += 900 if height % 3 else 1_000
            self.assertEqual(self.see(height, stored), {})
        found: dict[Trouble, str] = {}
        for height in range(130, 143):
            stored += 620
            found = self.see(height, stored)
        self.assertIn("124 artifacts a second are stored, and 187 were usual", found[Trouble.SLOWER])
        self.assertIn("one of the 3 nodes", found[Trouble.SLOWER])

    def test_a_node_that_generates_no_more(self) -> None:
        self.see(100, 5)
        found = self.see(101, 6, generating=NODES - {"node2"}, failures={"node2": "CUDA out of memory"})
        text = found[Trouble.STOPPED]
        self.assertIn("node2 (1 in all)", text)
        self.assertIn("59 blocks left: CUDA out of memory", text)
        self.assertEqual(self.see(102, 7), {}, "it generates again")
        self.assertEqual(self.see(161, 7, generating=frozenset()), {}, "the stage is over")

    def test_no_vote_of_ours(self) -> None:
        self.see(160, 100, 100)
        for height in range(165, 175):
            self.assertEqual(self.see(height, None, 100, votes=Votes(7, 0)), {}, "they wait in the container")
        text = self.see(175, None, 100, votes=Votes(7, 0))[Trouble.VOTES]
        self.assertIn("no vote of ours is on the chain, 7 participants have committed, 10 blocks left", text)
        self.assertIn(Trouble.VOTES, self.see(176, None, 100), "they are asked for now and then")
        self.assertEqual(self.see(177, None, 100, votes=Votes(7, 1)), {})
        self.assertEqual((self.watch.record.votes, self.watch.record.participants), (1, 7))

    def test_stages_of_other_kinds_are_named(self) -> None:
        for kind, word in ((StageKind.CONFIRMATION, "(confirmation)"), (StageKind.CHALLENGE, "(challenge)")):
            self.watch = StageWatch(WatchedStage.of(StageWindow(100, 100, 160, 165, 185, kind), "m"), 0)
            for height in range(100, 107):
                found = self.see(height, None)
            self.assertIn(f"stage 100 {word}, m", found[Trouble.SILENT])
        self.assertEqual(self.see(161, 5, 0), {}, "nothing is committed or voted on in this way for a challenge")

    def test_what_is_kept_survives_a_restart_of_dapi(self) -> None:
        for height in range(100, 130):
            self.see(height, height * 10, height * 9, restarts=2, handed_on={"node1": height})
        record = WatchedStage.of(STAGE, "m")
        record.restarts, record.stored_at_a_third, record.handed_on = 2, 1200, {"node1": 129}
        record.stored, record.committed, record.stored_at_the_end = 1290, 1161, 1290
        self.assertEqual(self.watch.record, record)
        again = StageWatch(record, 0)
        again.see(Seen(now=1.0, height=131, stored=1310))
        self.assertEqual((again.record.restarts, again.record.share_at_a_third), (2, round(1200 / 1310, 3)))
        again.see(Seen(now=2.0, height=132, restarts=1))
        self.assertEqual(again.record.restarts, 3)
        self.assertEqual(again.record.stored, 1310, "not known is not zero")

    def test_the_end_of_a_challenge_may_move(self) -> None:
        self.watch.move(StageWindow(100, 100, 140, 141, 141, StageKind.CHALLENGE))
        self.assertEqual((self.watch.record.end, self.watch.record.validation_end), (140, 141))

    def test_nothing_is_committed(self) -> None:
        for height in range(100, 106):
            self.assertNotIn(Trouble.NOTHING_COMMITTED, self.see(height, 1258 + height, 0))
        text = self.see(106, 1400, 0)[Trouble.NOTHING_COMMITTED]
        self.assertIn("nothing was committed although 1400 are stored, 54 blocks left", text)
        self.assertEqual(self.see(108, 1500, None), {}, "not known is not nothing")

    def test_commits_stop_before_the_end(self) -> None:
        for height in range(100, 148):
            self.assertEqual(self.see(height, (height - 99) * 1000, (height - 99) * 1000), {})
        found: dict[Trouble, str] = {}
        for height in range(148, 152):
            found = self.see(height, (height - 99) * 1000, 48_000)
        self.assertIn("stored 52000, committed 48000, 9 blocks left", found[Trouble.NOT_COMMITTED])

    def test_the_tail_and_the_weights(self) -> None:
        for height in range(155, 161):
            self.see(height, 1250, 1000)
        found = self.see(165, None, 825, has_weights=False)
        self.assertIn("825 of 1250", found[Trouble.TAIL])
        self.assertIn("the weight distribution is missing, 20 blocks left", found[Trouble.WEIGHTS])
        self.assertNotIn(Trouble.WEIGHTS, self.see(166, None, 825, has_weights=True))

    def test_the_container_was_started_anew_in_the_stage(self) -> None:
        self.see(100, 5, 5)
        self.assertIn("started anew 2 times in stage 100", self.see(101, 6, 6, restarts=2)[Trouble.RESTARTED])
        later = StageWatch(WatchedStage.of(STAGE, "m"), 2)
        later.see(Seen(now=0.0, height=100, stored=5, committed=5, generating=NODES, restarts=2))
        self.assertEqual(later.troubles(), {})
