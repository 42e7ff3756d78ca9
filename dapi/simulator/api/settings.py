"""What kind of api container is simulated, and what can be made to go wrong with it."""

from __future__ import annotations

import enum

import msgspec

MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
"""A model of the network; its slash makes the paths of callbacks what they are."""
START = 1_728_000
"""The start of a stage."""


class Line(enum.Enum):
    """The lines of the network's code, which answer differently."""

    B = "v0.2.12 and v0.2.13: any height opens a store, a failed store is answered with 200"
    C = "from v0.2.14 on: only the active stage, a failed store is answered with 503"
    D = "later: artifacts may have steps in place of a vector, and an incomplete result makes no vote"


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``flush_seconds`` is the real ``poc_commit_interval_seconds``.

    After a start the container answers 503 for ``unsynced_seconds``, until it has seen a block. ``nests_params`` has
    the parameters in ``epochs/latest`` one level deeper and as texts, as v0.2.15 does; some builds of that have no
    ``metrics``. The timers of flushes and commits go off together, and chance says which one goes first: where
    ``commits_first``, a commit has what the flush before brought to disk. ``many_commits_a_block`` has the chain take
    more than one, for tests that stand at one height; the real one refuses the second.
    """

    line: Line = Line.C
    flush_seconds: float = 5.0
    unsynced_seconds: float = 0.4
    nests_params: bool = False
    has_metrics: bool = True
    commits_first: bool = False
    many_commits_a_block: bool = False


class Faults(msgspec.Struct):
    """What goes wrong now; may be changed at any time.

    ``status`` answers each callback with that status (302 and 307 with a Location), ``text`` with that error text.
    ``hangs`` answers nothing. ``store_fails`` is a full disk: B answers 200 and keeps nothing, C 503. ``flush_fails``
    keeps everything in memory. ``hand_over_fails`` answers 500 to each result of a validation.
    ``slow_seconds_per_mb`` delays an answer by the size of its body. ``junk_bytes`` answers 200 with that many bytes of
    junk. ``commits_refused`` has the chain refuse each commit, of which nothing tells. ``chain_down`` answers 500 to
    whatever the container asks the chain for. ``told_hangs`` and ``told_junk_bytes`` are ``hangs`` and ``junk_bytes``
    of what is asked at its public and its admin port.
    """

    status: int | None = None
    text: str = "told to fail"
    hangs: bool = False
    store_fails: bool = False
    flush_fails: bool = False
    hand_over_fails: bool = False
    slow_seconds_per_mb: float = 0.0
    junk_bytes: int | None = None
    commits_refused: bool = False
    chain_down: bool = False
    told_hangs: bool = False
    told_junk_bytes: int | None = None
