"""What is wrong with a stage is said in words while something can be done."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.api_answers import StageWindow
from dapi.relay.stage_watch import Seen, StageWatch, Trouble

STAGE = StageWindow(100, 100, 160, 165, 185)


class StageWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.watch = StageWatch(STAGE, "m", 0)
        self.now = 0.0

    def see(self, height: int, stored: int | None, committed: int | None = None, **more: Any) -> dict[Trouble, str]:
        """Look at a block, 5 s after the one before."""
        self.now += 5.0
        seen = {"has_weights": None, "generating": 3, "restarts": 0, **more}
        self.watch.see(Seen(self.now, height, stored, committed, **seen))
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
        for height in range(108, 120):
            found = self.see(height, 5, generating=0)
        self.assertEqual(found, {}, "no node generates")

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
        later = StageWatch(STAGE, "m", 2)
        later.see(Seen(0.0, 100, 5, 5, None, 3, 2))
        self.assertEqual(later.troubles(), {})
