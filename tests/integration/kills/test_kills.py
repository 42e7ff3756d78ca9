"""Whole epochs in which dapi, the nodes and the chain are killed at random moments of every phase.

``DAPI_FAULT_ROUNDS=100`` makes so many interruptions of each kind, where usually there is one.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.kills.chain_process import FIRST_POC, PARAMS
from tests.integration.kills.stand import FAST, NODES, SLOW, Stand, reactor
from tests.integration.test_pull_the_plug import all_batches
from tests.integration.twistd_process import Run, twistd
from tests.integration.waiting import until_awaited

__all__ = ["twistd"]

ROUNDS = int(os.environ.get("DAPI_FAULT_ROUNDS", "1"))
# Of each kind.
PER_STAGE = 3
KINDS = ("dapi -9", "dapi TERM", "node -9", "chain -9")
# Heights after the start of a stage at which something may be interrupted, by phase: after the last one of a window,
# time is left in it for what was acknowledged.
EXCHANGE = PARAMS.poc_stage_duration
VALIDATION = PARAMS.poc_stage_duration + PARAMS.poc_validation_delay
PHASES = {
    "generation": range(1, EXCHANGE - 4),
    "exchange": range(EXCHANGE, EXCHANGE + 8),
    "validation": range(VALIDATION + 1, VALIDATION + 11),
    "inference": range(VALIDATION + PARAMS.poc_validation_duration + 2, PARAMS.epoch_length - 8),
}
LAST_OF_BATCHES = EXCHANGE + PARAMS.poc_exchange_duration
LAST_OF_VERDICTS = VALIDATION + PARAMS.poc_validation_duration
# Batches of a stage.
FEW = 20
PATIENCE_SECONDS = 120


class Plan:
    """What is interrupted when: all kinds in turn, at random moments of random phases."""

    def __init__(self) -> None:
        self._random = random.Random(ROUNDS)
        self._left = dict.fromkeys(KINDS, ROUNDS)
        self.done: Counter[str] = Counter()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be interrupted."""
        return not any(self._left.values())

    def of_stage(self) -> list[tuple[int, str, str]]:
        """Return what is interrupted in the next stage, and how many blocks after its start, in order."""
        moments = []
        for kind in KINDS:
            for _ in range(min(PER_STAGE, self._left[kind])):
                self._left[kind] -= 1
                phase = self._random.choice(list(PHASES))
                moments.append((self._random.choice(PHASES[phase]), phase, kind))
        return sorted(moments)

    async def interrupt(self, stand: Stand, phase: str, kind: str) -> None:
        """Kill or stop one process, and start it again a moment later."""
        name, _, how = kind.partition(" ")
        name = self._random.choice(NODES) if name == "node" else name
        # In generation there is always something under way.
        kills_itself = name != "dapi" and phase == "generation" and self._random.random() < 0.5
        stand.pace(SLOW)
        if how == "TERM":
            await stand.stop_dapi()
        elif kills_itself:
            await stand.when_killed_itself(name)
        else:
            await stand.kill(name)
        await deferLater(reactor, self._random.uniform(0, 0.5))
        await stand.start(name)
        stand.pace(FAST)
        self.done[f"{kind} in {phase}{', with something under way' if kills_itself else ''}"] += 1


@pytest_twisted.async_yield_fixture
async def stand(twistd: Run, tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path, twistd)
    yield stand
    await stand.end()


async def play_stage(stand: Stand, plan: Plan, start: int) -> None:
    """Play an epoch from the start of its PoC, and see that the chain has what was acknowledged in time."""
    moments = plan.of_stage()
    stand.be_quiet(wanted=False)

    async def interrupt(*phases: str) -> None:
        for moment, phase, kind in moments:
            if phase in phases:
                await stand.when_height(start + moment)
                await plan.interrupt(stand, phase, kind)

    await interrupt("generation")
    await stand.when_height(start + EXCHANGE - 4)
    stand.pace(SLOW)
    await stand.when(lambda: has_begun(stand, start))
    stand.pace(FAST)
    # What is acknowledged in the last block of the window could be in none.
    stand.be_quiet(wanted=True)
    await interrupt("exchange")
    stand.pace(SLOW)
    await stand.when(lambda: is_over(stand, start) or stand.height > start + LAST_OF_BATCHES)
    missing = stand.acknowledged.get(start, set()) - stand.in_blocks(start)
    assert not missing, f"stage {start}: {len(missing)} acknowledged batches are in no block: {sorted(missing)[:5]}"
    stand.pace(FAST)
    await interrupt("validation")
    stand.pace(SLOW)
    await stand.when(lambda: stand.has_verdict(start) or stand.height > start + LAST_OF_VERDICTS)
    assert stand.has_verdict(start) or not stand.verdicts[start]
    stand.pace(FAST)
    await interrupt("inference")
    await stand.when_height(start + PARAMS.epoch_length - 1)


def has_begun(stand: Stand, start: int) -> bool:
    """Whether this test is not one of nothing, in this stage."""
    return len(stand.acknowledged.get(start, ())) >= FEW or stand.height >= start + EXCHANGE


def is_over(stand: Stand, start: int) -> bool:
    """Whether the nodes have nothing to deliver, and all that was acknowledged of a stage is in blocks."""
    return not any(stand.undelivered.values()) and stand.acknowledged.get(start, set()) <= stand.in_blocks(start)


@pytest_twisted.ensureDeferred
async def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(stand: Stand) -> None:
    await stand.start_all()
    stand.pace(FAST)
    plan, stages = Plan(), 0
    while not plan.is_done:
        await play_stage(stand, plan, FIRST_POC + stages * PARAMS.epoch_length)
        stages += 1

    async def is_finished() -> bool:
        rows = await all_batches(stand.admin_port)
        return all(row["state"] == "confirmed" for row in rows if row["kind"] == "generated")

    await until_awaited(is_finished, PATIENCE_SECONDS)
    stand.look()
    acknowledged = set().union(*stand.acknowledged.values())
    rows = await all_batches(stand.admin_port)
    stored = {row["batch_id"] for row in rows if row["kind"] == "generated"}
    on_chain = stand.chain.simulated.blockchain.batch_counts()
    print(f"{stages} stages, {dict(stand.counts)}")
    print(f"acknowledged {len(acknowledged)}, on disk {len(stored)}, in blocks {len(on_chain)}")
    print(f"interrupted: {dict(sorted(plan.done.items()))}")
    assert acknowledged <= stored
    assert on_chain == dict.fromkeys(stored, 1)
    assert not stand.chain.simulated.state.doubled_nonces()
    assert {row["state"] for row in rows} <= {"confirmed"}
    # Not a test of nothing.
    assert len(stand.acknowledged) == stages
    assert all(len(ids) >= FEW for ids in stand.acknowledged.values())
    seeds = {index for index, creator in stand.chain.simulated.state.seeds if creator == stand.chain.participant}
    assert seeds == set(range(1, stages + 1))
    assert plan.done.total() == ROUNDS * len(KINDS)
