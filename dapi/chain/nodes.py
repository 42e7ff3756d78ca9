"""What is known of each of the chain's nodes: which of them can be relied on, and how high the chain is.

The standings of a node::

        more than 2 blocks behind, standing still for 2, or catching up
    ┌───────┐ ───────────────────────────────────────────▶ ┌────────┐
    │ SOUND │                                              │ BEHIND │
    └───────┘ ◀─────────────────────────────────────────── └────────┘
      │   ▲                 at most 1 behind                 ▲   │
      │   │                                                  │   │
      │   └────── status ────── FAILING ────── status ───────┘   │
      │                          ▲   ▲                           │
      └──── call fails ──────────┘   └──── call fails ───────────┘

    each ── status with a block of another chain ──▶ OTHER_CHAIN ── status that fits again ──▶ SOUND or BEHIND

Only a status ends FAILING and OTHER_CHAIN. A node with one of them is skipped, for a time that doubles up to 60 s, when
all nodes are asked for their status; unless none is sound. A node that is cut off from the others looks healthy: it
answers, it is not catching up, and it takes transactions (docs/protocol/measured.md, 'Chain nodes that fail'). Only the
height that another node tells shows that it is behind.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hyperlink import URL
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.chain.identity import contradiction, impossible_height
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.errors import ConfigError
from dapi.messages.urls import parse_url
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.observers import Observers

_MAX_LAG_BLOCKS = 2
# One that brings no block while the others bring so many is cut off from them.
_STANDS_STILL_BLOCKS = 2
# A node that was left comes back with less, so that one at the limit does not come and go with each block.
_MAX_LAG_TO_RETURN_BLOCKS = 1
_MIN_SKIP_SECONDS, _MAX_SKIP_SECONDS = 5.0, 60.0
# A height may be told with a time that fits it.
_MAX_AHEAD_SECONDS = 4 * 3600.0
# A node that fails again sooner than this after a skip is skipped for longer.
_TRUSTED_AFTER_SECONDS = 60.0


class Standing(enum.StrEnum):
    """How far a node can be relied on; its place in this list is its place in line."""

    SOUND = "sound"
    """It was not asked yet, or it answers and is where the chain is."""
    BEHIND = "behind"
    """It answers, and does not have the chain's latest blocks."""
    FAILING = "failing"
    """It did not answer the last call."""
    OTHER_CHAIN = "other_chain"
    """It is of another chain: it is not used."""


_LINE = list(Standing)


class ChainTrouble(enum.StrEnum):
    """Why the chain takes nothing now."""

    NOT_ASKED = "not_asked"
    """No node has been asked yet."""
    UNREACHABLE = "unreachable"
    """No node answers that is where the chain is."""
    CATCHING_UP = "catching_up"
    """The best node says that it does not have the latest blocks yet."""
    OTHER_CHAIN = "other_chain"
    """All nodes are of another chain."""
    HALTED = "halted"
    """No new block comes."""
    BROKEN = "broken"
    """dapi itself failed."""


class ChainNode:
    """One URL of the chain, and what was heard of it; ``name`` is its host and port, by which it is called in texts.

    ``height`` is the latest block that it told, None before its first status; ``lag`` is by how many blocks it was
    behind then. ``problem`` is the last thing that was wrong, also after it is over.
    """

    def __init__(self, index: int, url: URL, name: str) -> None:
        self.index = index
        self.url = url.to_text()
        self.name = name
        self.standing = Standing.SOUND
        self.height: int | None = None
        self.lag = 0
        # The height that the chain had when this node last brought a block.
        self.moved_at_height = 0
        self.is_catching_up = False
        self.has_tx_index: bool | None = None
        self.problem: str | None = None
        self.is_leave_logged = False
        self.skipped_until = float("-inf")
        self._skip_seconds = 0.0

    @property
    def is_reachable(self) -> bool:
        """Whether it answers as a node of the chain, current or not."""
        return self.standing in (Standing.SOUND, Standing.BEHIND)

    def skip(self, now: float) -> None:
        """Skip it from now on, longer than last time if that was not long ago."""
        if now < self.skipped_until:
            return
        is_again = now - self.skipped_until < _TRUSTED_AFTER_SECONDS
        self._skip_seconds = min(2 * self._skip_seconds, _MAX_SKIP_SECONDS) if is_again else _MIN_SKIP_SECONDS
        self.skipped_until = now + self._skip_seconds


class ChainNodes:
    """The nodes of ``urls``, which are in order of preference, and the latest block that any of them told.

    ``latest`` is that block, with the status of the node that told it; None before the first status. Its height never
    falls. The first node that tells its status decides which chain it is, unless ``expect_chain_of`` was called before.
    Raises ConfigError for a URL that cannot be used.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, urls: Sequence[str], *, now: Callable[[], float] = time.time) -> None:
        if not urls:
            raise ConfigError("the chain needs at least one URL, like http://host:26657")
        self.latest: ChainStatus | None = None
        self._latest_at = 0.0
        self._clock = clock
        self._now = now
        self._known: BlockInfo | None = None
        self._nodes: list[ChainNode] = []
        self._observers = Observers[[]]()
        self._log_limit = OncePerMinute(clock)
        for url in map(http_url, urls):
            number = sum(node.name.partition(" ")[0] == url.authority() for node in self._nodes)
            name = f"{url.authority()} ({number + 1})" if number else url.authority()
            self._nodes.append(ChainNode(len(self._nodes), url, name))

    def __getitem__(self, index: int) -> ChainNode:
        """Return the node of the URL with this index."""
        return self._nodes[index]

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` whenever ``latest`` is a new block."""
        self._observers.add(observer)

    def expect_chain_of(self, block: BlockInfo) -> None:
        """Take a node for one of another chain when its status contradicts this ``block``, until there is a later one.

        For a block that was known before this process: it decides which chain it is.
        """
        if self.latest is None:
            self._known = block

    def of_another_chain(self) -> str | None:
        """Say why all nodes are of another chain than the one that is known; None when not all of them are."""
        if any(node.standing is not Standing.OTHER_CHAIN for node in self._nodes):
            return None
        return f"{self._nodes[0].name}: {self._nodes[0].problem}"

    def take_other_chain(self) -> None:
        """Let the next status decide which chain it is: this process has seen no block of the one that was expected."""
        self._known = None
        for node in self._nodes:
            node.standing = Standing.SOUND

    # Which node to ask.

    def in_order(self, turn: int = 0) -> list[ChainNode]:
        """Return the nodes that may be asked, the best first.

        Sound nodes come first, then those that are behind, then those that fail; among equals the order of the URLs
        counts. With a ``turn`` the list begins with another of the sound nodes, each in its turn.
        """
        usable = [node for node in self._nodes if node.standing is not Standing.OTHER_CHAIN]
        usable.sort(key=lambda node: _LINE.index(node.standing))
        sound = [node for node in usable if node.standing is Standing.SOUND]
        if not sound:
            return usable
        first = sound[turn % len(sound)]
        return [first, *(node for node in usable if node is not first)]

    def has_tx_index(self) -> bool:
        """Tell whether a sound node has an index of transactions, as far as is known."""
        return any(node.standing is Standing.SOUND and node.has_tx_index is not False for node in self._nodes)

    def due(self) -> list[ChainNode]:
        """Return the nodes that are to be asked for their status now."""
        now = self._clock.seconds()
        if all(node.standing is not Standing.SOUND for node in self._nodes):
            return list(self._nodes)
        return [node for node in self._nodes if node.is_reachable or now >= node.skipped_until]

    def next_to_follow(self, index: int) -> int:
        """Return the index of the node that comes after this one, of those that are as good as the best, in a circle.

        It is the best one's when the node ``index`` is worse than the best.
        """
        ordered = self.in_order()
        if not ordered:
            return (index + 1) % len(self._nodes)
        equals = [node.index for node in ordered if node.standing is ordered[0].standing]
        return equals[(equals.index(index) + 1) % len(equals)] if index in equals else equals[0]

    # What was heard of a node.

    def status_received(self, node: ChainNode, asked_at_height: int, status: ChainStatus) -> None:
        """Judge a node by its status; ``asked_at_height`` is the height that was known when it was asked."""
        node.has_tx_index = status.has_tx_index
        other = self._contradiction(status.block)
        if other is not None:
            self._leave(node, Standing.OTHER_CHAIN, other)
            return
        if status.height != node.height:
            node.height, node.moved_at_height = status.height, asked_at_height
        node.is_catching_up = status.catching_up
        node.lag = max(0, asked_at_height - status.height)
        stood_still = asked_at_height - max(node.moved_at_height, status.height)
        max_lag = _MAX_LAG_TO_RETURN_BLOCKS if node.standing is Standing.BEHIND else _MAX_LAG_BLOCKS
        if status.catching_up:
            self._leave(node, Standing.BEHIND, "catching up")
        elif node.lag > max_lag or stood_still >= _STANDS_STILL_BLOCKS:
            self._leave(node, Standing.BEHIND, f"{node.lag} blocks behind")
        elif node.standing is not Standing.SOUND:
            node.standing = Standing.SOUND
            log, node.is_leave_logged = self.log.info if node.is_leave_logged else self.log.debug, False
            log("chain node {node} is back, at height {height}", node=node.name, height=node.height)
        self._update(status)

    def block_announced(self, node: ChainNode, block: BlockInfo) -> bool:
        """Take over a block that a node announced; return whether it is of the chain, and not behind ``latest``."""
        # Before the first status it is unknown whether the node is catching up.
        latest = self.latest
        if latest is None or block.height < latest.height or self._contradiction(block) is not None:
            return False
        node.height = node.moved_at_height = block.height
        node.lag = 0
        news = {"height": block.height, "block_time_ns": block.time_ns, "block_hash": block.hash, "node": node.name}
        self._update(msgspec.structs.replace(latest, **news))
        return True

    def call_failed(self, node: ChainNode, call: str, reason: str) -> None:
        """Record that a node did not answer a call; a node of another chain stays one."""
        if node.standing is not Standing.OTHER_CHAIN:
            self._leave(node, Standing.FAILING, f"failed at {call}: {reason}")
        else:
            node.skip(self._clock.seconds())

    def _contradiction(self, block: BlockInfo) -> str | None:
        known = self.latest.block if self.latest is not None else self._known
        if known is None:
            return None
        reason = contradiction(known, block) or impossible_height(known, block)
        if reason is None and self.latest is not None:
            reason = self._why_too_young(self.latest, block)
        return reason

    def _why_too_young(self, latest: ChainStatus, block: BlockInfo) -> str | None:
        """Say that the time of a block cannot have come yet, by the chain's clock as well as by this machine's."""
        by_chain = (block.time_ns - latest.block_time_ns) / 1e9 - (self._clock.seconds() - self._latest_at)
        ahead = min(by_chain, block.time_ns / 1e9 - self._now())
        if ahead <= _MAX_AHEAD_SECONDS:
            return None
        return f"the time of its block {block.height} comes in {ahead:.0f} s"

    def _update(self, status: ChainStatus) -> None:
        if self.latest is None or status.height > self.latest.height:
            self.latest, self._latest_at = status, self._clock.seconds()
            self._observers()

    def _leave(self, node: ChainNode, standing: Standing, problem: str) -> None:
        if standing in (Standing.FAILING, Standing.OTHER_CHAIN):
            node.skip(self._clock.seconds())
        is_new = node.standing is not standing
        node.standing = standing
        node.problem = problem
        if not is_new:
            return
        # One that fails at one kind of call, and is well otherwise, comes and goes every few seconds.
        is_due = self._log_limit.is_due(f"{node.name} {standing}")
        node.is_leave_logged |= is_due or standing is Standing.OTHER_CHAIN
        log = self.log.warn if is_due else self.log.debug
        if standing is Standing.OTHER_CHAIN:
            text = "chain node {node} is of another chain and is not used: {problem}"
            self.log.critical(text, node=node.name, problem=problem)
        elif standing is Standing.FAILING:
            log("chain node {node} {problem}", node=node.name, problem=problem)
        else:
            text = "chain node {node} is {problem}: the others go first until it has caught up"
            log(text, node=node.name, problem=problem)

    # What is told.

    def trouble(self) -> ChainTrouble | None:
        """Return why no node can be relied on; None when one is sound. ``problem`` has the words."""
        heard = self._heard()
        if not heard:
            return ChainTrouble.NOT_ASKED
        best = min(heard, key=lambda node: _LINE.index(node.standing))
        if best.standing is Standing.BEHIND and best.is_catching_up:
            return ChainTrouble.CATCHING_UP
        return {
            Standing.SOUND: None,
            Standing.BEHIND: ChainTrouble.UNREACHABLE,
            Standing.FAILING: ChainTrouble.UNREACHABLE,
            Standing.OTHER_CHAIN: ChainTrouble.OTHER_CHAIN,
        }[best.standing]

    def problem(self) -> str | None:
        """Return why no node can be relied on, in words; None when one is sound."""
        heard = self._heard()
        if not heard:
            return "not asked yet"
        best = min(heard, key=lambda node: _LINE.index(node.standing))
        if best.standing is Standing.SOUND:
            return None
        if best.standing is Standing.BEHIND:
            return "catching up" if best.is_catching_up else f"not reachable: {best.name} is {best.problem}"
        problems = "; ".join(f"{node.name}: {node.problem}" for node in heard)
        return f"{'not reachable' if best.standing is Standing.FAILING else 'another one'}: {problems}"

    def _heard(self) -> list[ChainNode]:
        return [node for node in self._nodes if node.height is not None or node.standing is not Standing.SOUND]

    def status(self) -> list[dict[str, Any]]:
        """Return what ``GET status`` shows of each node, in the order of the URLs, as JSON data."""
        ordered = self.in_order()
        return [
            {
                "name": node.name,
                "standing": node.standing.value,
                "is_used": bool(ordered) and node is ordered[0],
                "height": node.height,
                "lag": node.lag,
                "has_tx_index": node.has_tx_index,
                "last_problem": node.problem,
            }
            for node in self._nodes
        ]


def http_url(text: str) -> URL:
    """Return the URL of a chain node's RPC; ConfigError when it is none, or has a user or a password."""
    try:
        url = parse_url(text)
        # The network's own configuration writes tcp:// for the same thing.
        url = url.replace(scheme="http") if url.scheme == "tcp" else url
        if url.scheme in {"http", "https"} and url.host and url.port != 0 and not url.userinfo:
            return url
    except ValueError:
        pass
    # Not quoted: it may hold a password.
    raise ConfigError("the chain's URL must look like http://host:26657, without user and password")
