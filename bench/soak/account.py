"""What became of everything, counted from the nodes' ledgers and the chain's stores: no word of dapi's counts."""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dapi.simulator.chain.epochs import Window

# What is printed one by one stays readable.
_MAX_LOSSES = 20
_NUMBERS = re.compile(r"\d+")

Key = int
"""A batch by its content: the hash of height, nonces and distances."""


def key_of(height: int, nonces: Iterable[int], dist: Iterable[float]) -> Key:
    """Return the key of a batch, the same on the node's side and on the chain's."""
    return hash((height, tuple(nonces), tuple(dist)))


class Acknowledged(msgspec.Struct, frozen=True):
    """A batch that dapi acknowledged at ``at`` (seconds of the simulators' clock); ``stale`` says how it is wrong."""

    key: Key
    height: int
    at: float
    via: str
    stale: str | None = None


class Block(msgspec.Struct, frozen=True):
    """A block: when it was made, whether it found the grant, and what is in it."""

    made_at: float
    has_grant: bool
    transactions: int = 0
    messages: int = 0
    failed: Counter[str] = Counter()
    size: int = 0


class Stage(msgspec.Struct, frozen=True):
    """What the chain has of one epoch; ``owed`` and ``paid`` are None as long as nothing is settled or claimed."""

    index: int
    start: int
    batches: Window
    seed: Window
    claims: Window | None
    seed_height: int | None = None
    has_verdict: bool = False
    owed: int | None = None
    paid: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is counted. ``stored`` has the height of each batch in the chain's store; ``refused`` the last code."""

    acknowledged: Sequence[Acknowledged]
    blocks: Mapping[int, Block]
    stages: Sequence[Stage]
    stored: Mapping[Key, int]
    refused: Mapping[Key, str]
    doubled: int
    chances_needed: int
    undelivered: int = 0


class Fate(msgspec.Struct, frozen=True):
    """One acknowledged batch with a window: its chances, and whether it is in the store."""

    batch: Acknowledged
    chances: int
    height: int | None


class Account:
    """The sums; ``broken`` names each promise that was not kept, and ``late`` those of them that are about time."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._needed = facts.chances_needed
        self._windows = {stage.start: stage.batches for stage in facts.stages}
        sound = [batch for batch in facts.acknowledged if batch.stale is None]
        self.fates = [Fate(batch, self.chances(batch), facts.stored.get(batch.key)) for batch in sound]
        self.late = [text for text, is_broken in self._promises_in_time() if is_broken]
        self.broken = [*(text for text, is_broken in self._promises() if is_broken), *self.late]

    def chances(self, batch: Acknowledged) -> int:
        """Count the blocks of a batch's window that came after its ack and found the grant."""
        window = self._windows.get(batch.height)
        return 0 if window is None else self._count(window, batch.at)

    def _count(self, window: Window, after: float = float("-inf")) -> int:
        blocks = (self._facts.blocks.get(height) for height in range(window.first, window.last + 1))
        return sum(block is not None and block.has_grant and block.made_at > after for block in blocks)

    @property
    def lost(self) -> list[Fate]:
        """Batches whose window allowed them, and that are not in the store."""
        return [fate for fate in self.fates if fate.height is None and fate.chances >= self._needed]

    @property
    def seeds(self) -> tuple[int, int]:
        """Seeds that came in time, and stages whose window allowed one."""
        allowed = [stage for stage in self._facts.stages if self._count(stage.seed) >= self._needed]
        return sum(_in_time(stage) for stage in allowed), len(allowed)

    @property
    def claims(self) -> tuple[int, int]:
        """Epochs that were paid, and epochs with an allowed seed whose claim was allowed too."""
        allowed = [
            stage
            for stage in self._facts.stages
            if stage.claims is not None
            and min(self._count(stage.seed), self._count(stage.batches), self._count(stage.claims)) >= self._needed
        ]
        return sum(bool(stage.paid) for stage in allowed), len(allowed)

    def _promises(self) -> Iterable[tuple[str, bool]]:
        facts = self._facts
        yield "nothing was acknowledged", not self.fates
        yield f"{facts.doubled} doubled", facts.doubled > 0
        stale = [batch for batch in facts.acknowledged if batch.stale is not None and batch.key in facts.stored]
        yield f"{len(stale)} stale batches are in the store", bool(stale)

    def _promises_in_time(self) -> Iterable[tuple[str, bool]]:
        """Yield those that somebody who gets no CPU cannot keep."""
        yield (
            f"{len(self.lost)} acknowledged batches are not in the store, though their window allowed it",
            bool(self.lost),
        )
        for name, (done, allowed) in (("seeds", self.seeds), ("claims", self.claims)):
            yield f"{name}: {done} of {allowed}", done < allowed

    def lines(self) -> Iterable[str]:
        """Yield the report, line by line."""
        facts, needed = self._facts, self._needed
        ways = Counter(batch.via for batch in facts.acknowledged)
        stored = sum(fate.height is not None for fate in self.fates)
        missing = [fate for fate in self.fates if fate.height is None]
        expired = [fate for fate in missing if fate.batch.key not in facts.refused]
        yield f"acknowledged    {len(facts.acknowledged)} ({ways['websocket']} by WebSocket, {ways['http']} by HTTP)"
        yield f"  with a window {len(self.fates)}: in the store {stored}, not {len(missing)}"
        failed = [fate for fate in missing if fate.batch.key in facts.refused]
        for name, some in (("expired", expired), ("failed", failed)):
            allowed = sum(fate.chances >= needed for fate in some)
            yield f"  {name:13} {len(some)}: their window allowed {allowed}, did not allow {len(some) - allowed}"
        yield from self._failures(missing)
        yield from self._losses()
        yield f"undelivered     {facts.undelivered} (the nodes dropped them, or had no answer yet)"
        yield from self._table()
        yield f"doubled         {facts.doubled}"
        yield f"seeds           {self.seeds[0]} of {self.seeds[1]}"
        yield f"claims          {self.claims[0]} of {self.claims[1]}"
        paid, owed = (sum(getattr(stage, name) or 0 for stage in facts.stages) for name in ("paid", "owed"))
        yield f"paid            {paid} of {owed} that the chain owed"
        yield f"verdicts        on the neighbour in {sum(stage.has_verdict for stage in facts.stages)} stages"
        yield from self._stages()
        yield from self._traffic()

    def _failures(self, missing: Sequence[Fate]) -> Iterable[str]:
        refused = {key: alike(reason) for key, reason in self._facts.refused.items()}
        reasons = Counter(refused[fate.batch.key] for fate in missing if fate.batch.key in refused)
        for reason, count in reasons.most_common():
            yield f"    last code   {reason}: {count}"
        stale = Counter(
            (batch.stale, refused.get(batch.key, "not named in a block"))
            for batch in self._facts.acknowledged
            if batch.stale is not None
        )
        for (name, reason), count in sorted(stale.items()):
            yield f"  stale         {name}: {count} ({reason})"

    def _losses(self) -> Iterable[str]:
        """Yield when the batches were acknowledged that should be in the store and are not."""
        heights = sorted(self._facts.blocks)
        made = [self._facts.blocks[height].made_at for height in heights]
        losses = Counter(
            (fate.batch.height, heights[max(0, bisect_right(made, fate.batch.at) - 1)], fate.chances)
            for fate in self.lost
        )
        for (stage, height, chances), count in sorted(losses.items())[:_MAX_LOSSES]:
            yield f"  LOST          {count} of stage {stage}, acknowledged after block {height}, with {chances} chances"

    def _table(self) -> Iterable[str]:
        """Yield how batches fared by their chances."""
        columns = [*range(self._needed), self._needed]
        names = [*map(str, range(self._needed)), f"{self._needed}+"]
        yield "chances       " + "".join(f"{name:>9}" for name in names)
        for name, is_wanted in (("acknowledged", False), ("in the store", True)):
            counts = Counter(
                min(fate.chances, self._needed) for fate in self.fates if not is_wanted or fate.height is not None
            )
            yield f"  {name:12}" + "".join(f"{counts[column]:>9}" for column in columns)

    def _stages(self) -> Iterable[str]:
        yield "epoch  acknowledged  in the store  allowed, not  seed at  owed     paid"
        for stage in self._facts.stages:
            fates = [fate for fate in self.fates if fate.batch.height == stage.start]
            lost = sum(fate.height is None and fate.chances >= self._needed for fate in fates)
            stored = sum(fate.height is not None for fate in fates)
            seed = "-" if stage.seed_height is None else f"+{stage.seed_height - stage.start}"
            owed, paid = ("-" if value is None else str(value) for value in (stage.owed, stage.paid))
            yield f"{stage.index:>5}  {len(fates):>12}  {stored:>12}  {lost:>12}  {seed:>7}  {owed:<7}  {paid}"

    def _traffic(self) -> Iterable[str]:
        blocks = self._facts.blocks
        full = [block for block in blocks.values() if block.transactions]
        if full:
            transactions, messages, size = (
                [getattr(block, name) for block in full] for name in ("transactions", "messages", "size")
            )
            yield f"blocks          {len(blocks)}, {len(full)} of them with transactions"
            yield f"  transactions  a block {_spread(transactions)}; {sum(transactions)} in all"
            yield f"  messages      a block {_spread(messages)}; a transaction {sum(messages) / sum(transactions):.1f}"
            yield f"  bytes         a block {_spread(size)}"
        failed: Counter[str] = Counter()
        for block in blocks.values():
            for reason, count in block.failed.items():
                failed[alike(reason)] += count
        for reason, count in failed.most_common():
            yield f"  in vain       {count} transactions: {reason}"
        waits = [
            blocks[fate.height].made_at - fate.batch.at
            for fate in self.fates
            if fate.height is not None and fate.height in blocks
        ]
        if len(waits) > 1:
            p50, p99 = (statistics.quantiles(waits, n=100, method="inclusive")[each] for each in (49, 98))
            yield f"ack to block    p50 {p50:.1f} s, p99 {p99:.1f} s, longest {max(waits):.1f} s"


def alike(text: str) -> str:
    """Return a text without its numbers, but for those before a colon: the same for all that differ in them."""
    code, colon, rest = text.partition(": ")
    return code + colon + _NUMBERS.sub("#", rest)


def _in_time(stage: Stage) -> bool:
    return stage.seed_height is not None and stage.seed_height <= stage.seed.last


def _spread(values: Sequence[int]) -> str:
    return f"p50 {statistics.median(values):.0f}, most {max(values)}"
