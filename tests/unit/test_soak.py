"""The soak's account: which windows allowed what, and which promises are broken."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from bench.soak import growth
from bench.soak.__main__ import measured_lines, verdict, waits_too_long
from bench.soak.account import Account, Acknowledged, Block, Facts, Stage, alike, key_of
from bench.soak.run import _short
from bench.soak.settings import SoakSettings, parse
from dapi.simulator.chain.epochs import Window

START = 10
NEEDED = 3
STAGE = Stage(
    1,
    START,
    batches=Window(START + 1, START + 10),
    seed=Window(START + 1, START + 20),
    claims=Window(START + 21, START + 30),
    seed_height=START + 1,
    has_verdict=True,
    owed=100,
    paid=100,
)


def acknowledged(key: int, at: float = START, stale: str | None = None) -> Acknowledged:
    """A batch of the stage that was acknowledged right after the block ``at``."""
    return Acknowledged(key, START, at + 0.5, "websocket", stale)


def account(*batches: Acknowledged, stage: Stage = STAGE, no_grant: range = range(0), **changes: Any) -> Account:
    """An account of one stage, whose block h was made at h seconds; all batches are in the block after their ack."""
    facts = Facts(
        acknowledged=batches,
        blocks={height: Block(height, height not in no_grant) for height in range(1, START + 31)},
        stages=[stage],
        stored={batch.key: int(batch.at) + 1 for batch in batches if batch.stale is None},
        refused={},
        doubled=0,
        chances_needed=NEEDED,
    )
    return Account(msgspec.structs.replace(facts, **changes))


class ChanceTests(SynchronousTestCase):
    def test_the_blocks_of_the_window_after_the_ack_are_chances(self) -> None:
        for at, chances in ((START - 3, 10), (START, 10), (START + 1, 9), (START + 9, 1), (START + 10, 0)):
            self.assertEqual(account().chances(acknowledged(1, at)), chances, at)

    def test_a_block_without_the_grant_is_none(self) -> None:
        self.assertEqual(account(no_grant=range(START + 9)).chances(acknowledged(1)), 2)

    def test_a_batch_of_no_stage_has_none(self) -> None:
        batch = msgspec.structs.replace(acknowledged(1), height=START - 1)
        self.assertEqual(account().chances(batch), 0)


class PromiseTests(SynchronousTestCase):
    def test_all_kept(self) -> None:
        self.assertEqual(account(acknowledged(1), acknowledged(2, stale="of no stage")).broken, [])

    def test_a_batch_with_enough_chances_is_not_in_the_store(self) -> None:
        (broken,) = account(acknowledged(1, START + 10 - NEEDED), stored={}).broken
        self.assertEqual(broken, "1 acknowledged batches are not in the store, though their window allowed it")

    def test_a_batch_with_fewer_chances_may_be_missing(self) -> None:
        self.assertEqual(account(acknowledged(1, START + 10 - NEEDED + 1), stored={}).broken, [])

    def test_doubled(self) -> None:
        self.assertEqual(account(acknowledged(1), doubled=2).broken, ["2 doubled"])

    def test_a_stale_batch_in_the_store(self) -> None:
        batches = acknowledged(1), acknowledged(2, stale="of no stage")
        self.assertEqual(account(*batches, stored={1: 11, 2: 11}).broken, ["1 stale batches are in the store"])

    def test_nothing_acknowledged(self) -> None:
        self.assertEqual(account().broken, ["nothing was acknowledged"])

    def test_a_seed_that_is_missing_or_late(self) -> None:
        for height in (None, STAGE.seed.last + 1):
            stage = msgspec.structs.replace(STAGE, seed_height=height)
            self.assertEqual(account(acknowledged(1), stage=stage).broken, ["seeds: 0 of 1"])

    def test_a_claim_that_is_not_paid(self) -> None:
        stage = msgspec.structs.replace(STAGE, paid=None)
        self.assertEqual(account(acknowledged(1), stage=stage).broken, ["claims: 0 of 1"])

    def test_without_the_grant_no_seed_and_no_claim_is_asked_for(self) -> None:
        stage = msgspec.structs.replace(STAGE, seed_height=None, owed=None, paid=None)
        found = account(acknowledged(1), stage=stage, no_grant=range(START + 19), stored={})
        self.assertEqual((found.seeds, found.claims, found.broken), ((0, 0), (0, 0), []))

    def test_the_last_stage_of_a_soak_is_claimed_by_nobody(self) -> None:
        stage = msgspec.structs.replace(STAGE, claims=None, owed=None, paid=None)
        self.assertEqual(account(acknowledged(1), stage=stage).claims, (0, 0))

    def test_the_exit_code(self) -> None:
        cases: tuple[tuple[list[str], list[str], int, str], ...] = (
            (["1 doubled"], [], 1, "promises broken\n"),
            ([], [], 0, "all promises kept\n"),
            (["9 missing"], ["9 missing"], 2, "run it again while less else runs\n"),
            (["1 doubled", "9 missing"], ["9 missing"], 1, "promises broken\n"),
        )
        for broken, excused, code, last in cases:
            with redirect_stdout(io.StringIO()) as output:
                self.assertEqual(verdict(broken, excused), code)
            self.assertTrue(output.getvalue().endswith(last))

    def test_a_busy_machine_excuses_what_is_late_alone(self) -> None:
        missing = account(acknowledged(1), stored={})
        self.assertEqual((missing.late, len(missing.late)), (missing.broken, 1))
        self.assertEqual(account(acknowledged(1), doubled=1).late, [])


class ReportTests(SynchronousTestCase):
    def test_what_is_missing_is_told_by_chances_and_by_the_last_code(self) -> None:
        batches = acknowledged(1), acknowledged(2), acknowledged(3, START + 9), acknowledged(4, stale="of no stage")
        codes = {2: "authz 2: no grant at 17", 4: "inference 1107: wrong 12"}
        lines = "\n".join(account(*batches, stored={1: START + 2}, refused=codes).lines())
        for line in (
            "  with a window 3: in the store 1, not 2",
            "  expired       1: their window allowed 0, did not allow 1",
            "  failed        1: their window allowed 1, did not allow 0",
            f"  LOST          1 of stage {START}, acknowledged after block {START}, with 10 chances",
            "    last code   authz 2: no grant at #: 1",
            "  stale         of no stage: 1 (inference 1107: wrong #)",
            "  acknowledged        0        1        0        2",
            "  in the store        0        0        0        1",
            "paid            100 of 100 that the chain owed",
        ):
            self.assertIn(line, lines)

    def test_the_time_from_ack_to_block(self) -> None:
        batches = [acknowledged(key) for key in range(3)]
        stored = {0: START + 1, 1: START + 2, 2: START + 3}
        lines = list(account(*batches, stored=stored).lines())
        self.assertEqual(lines[-1], "ack to block    p50 1.5 s, p99 2.5 s, longest 2.5 s")

    def test_a_machine_that_is_too_busy_is_told(self) -> None:
        measured = {"rss_kib": 1024, "cpu_seconds": 10.0, "waited_seconds": 9.0}
        self.assertEqual(list(measured_lines(measured, 100))[-1], "  waited        9.0 s for a CPU that others had")
        line = list(measured_lines({**measured, "waited_seconds": 11.0}, 100))[-1]
        self.assertTrue(line.endswith("this machine is too busy for a verdict"), line)

    def test_one_that_waits_longer_than_it_computes_is_enough(self) -> None:
        well, waiting = {"cpu_seconds": 2.0, "waited_seconds": 1.0}, {"cpu_seconds": 2.0, "waited_seconds": 3.0}
        self.assertFalse(waits_too_long(well, {"cpu_seconds": 1.0}))
        self.assertTrue(waits_too_long(well, waiting))

    def test_what_a_log_quotes_is_left_out(self) -> None:
        quoted = (
            "failed to execute message; message SubmitPocBatch(creator='gonka', nonces=(1, 2), dist=(0.5, 0.5),"
            + 9 * " "
        )
        for log, short in (
            (
                f"failed to execute message; message index: 0: {quoted}): upcoming epoch not found",
                "upcoming epoch not found",
            ),
            (f"{quoted}): height 9 is outside [1, 2]: too late", "height 9 is outside [1, 2]: too late"),
            ("short: and: whole", "short: and: whole"),
        ):
            self.assertEqual(_short(log), short)

    def test_numbers_are_left_out(self) -> None:
        self.assertEqual(alike("inference 1107: height is 6, not 5"), "inference 1107: height is #, not #")

    def test_a_batch_has_one_key_on_both_sides(self) -> None:
        self.assertEqual(key_of(1, [2, 3], [0.5, 1.0]), key_of(1, (2, 3), (0.5, 1.0)))
        self.assertNotEqual(key_of(1, [2], [0.5]), key_of(2, [2], [0.5]))


class SettingsTests(SynchronousTestCase):
    def test_a_duration_shrinks_blocks_and_batches_alike(self) -> None:
        settings, _ = parse(["--duration", "600"], None)
        self.assertAlmostEqual(settings.expected_seconds, 600)
        self.assertEqual(settings.block_seconds, settings.batch_seconds)

    def test_the_index_is_off_in_half_of_the_runs(self) -> None:
        off = [parse(["--seed", str(seed)], None)[0].is_index_off for seed in range(10)]
        self.assertEqual(off.count(True), 5)

    def test_the_last_claim_has_its_chances(self) -> None:
        settings = SoakSettings(epochs=10)
        self.assertGreaterEqual(settings.last_height - settings.claim_window(10).first, settings.chances)
        self.assertEqual(len(settings.starts), 11)


class GrowthTests(SynchronousTestCase):
    def uses(self, *megabytes: int, files: int = 40) -> list[growth.Use]:
        return [growth.Use(height, 1024 * each, files) for height, each in enumerate(megabytes)]

    def test_what_is_filled_once_does_not_count(self) -> None:
        self.assertEqual(list(growth.grown(self.uses(60, 120, 122, 125, 119))), [])

    def test_memory_that_grows_with_each_epoch(self) -> None:
        grown = list(growth.grown(self.uses(60, 100, 120, 140, 160)))
        self.assertEqual(grown, ["memory grew from 100 to 160 MiB"])

    def test_files_that_stay_open(self) -> None:
        uses = [growth.Use(height, 1024, 40 + 20 * height) for height in range(4)]
        self.assertEqual(list(growth.grown(uses)), ["open files grew from 60 to 100"])

    def test_two_epochs_say_nothing(self) -> None:
        self.assertEqual(list(growth.grown(self.uses(60, 600))), [])

    def test_this_process(self) -> None:
        use = growth.use_of(os.getpid(), 7)
        assert use is not None
        self.assertGreater(use.rss_kib, 1024)
        with open(__file__, encoding="utf-8"):
            more = growth.use_of(os.getpid(), 7)
        assert more is not None
        self.assertEqual(more.files, use.files + 1)

    def test_a_process_that_is_gone(self) -> None:
        self.assertIsNone(growth.use_of(2**22 + 1, 7))

    def test_what_is_printed(self) -> None:
        self.assertEqual(
            list(growth.lines(self.uses(60, 61))),
            ["after each epoch 60, 61 MiB in memory", "  open files    40, 40"],
        )
