"""Which node gets which participant to validate in one stage, and which node is silent. Pure: no clock, no I/O.

What becomes of one participant (a verdict makes it ANSWERED, whatever it was before):

    WAITING ──offer──▶ OFFERED ──the node took it──▶ HELD ──its node is lost, TRIES times──▶ ABANDONED
       ▲                  │                            │
       └──node refused it─┴────────its node is lost────┘

What becomes of one node; it is lost when it is silent, when it is away, and when it begins to validate anew, because it
has forgotten then what it took:

    ACTIVE ──no verdict for 60 s──▶ EXAMINED ──its model is loaded: it is silent──▶ BARRED
       ▲                               │                                              │
       └──its model loads, or verdict──┴──it is away or anew, or 60 s have passed─────┘
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import attrs

from dapi.messages import ProofBatch
from dapi.messages.addresses import address_of

# After so many nodes that refused a participant all wait a little; after so many lost ones it may be the reason.
TRIES: Final = 5
CALLS_AT_ONCE: Final = 2
MAX_EARLY_VERDICTS: Final = 100_000


class Progress(enum.Enum):
    """What has become of a participant."""

    WAITING = "waits for a node"
    OFFERED = "is offered to a node, which has not replied yet"
    HELD = "was taken by a node, which owes the verdict"
    ABANDONED = "was taken too often without a verdict"
    ANSWERED = "has a verdict"


class NodeState(enum.Enum):
    """Whether a node gets participants; only an ACTIVE one does."""

    ACTIVE = "active"
    EXAMINED = "asked whether its model is loading"
    BARRED = "silent, until it is restarted"


class Offer(NamedTuple):
    """One participant's batch that is to be posted to one node; ``accepted`` or ``refused`` has to follow."""

    node_id: str
    address: str
    batch: ProofBatch
    beginning: object


class Decisions(NamedTuple):
    """What is to be done now: offers to post, nodes to ask whether their model is loading, warnings to log."""

    offers: list[Offer]
    examine: list[str]
    warnings: list[str]


@attrs.define(eq=False)
class _Participant:
    address: str
    batch: ProofBatch
    progress: Progress = Progress.WAITING
    holder: _Node | None = None
    # In this round of offers, which ends in a pause.
    refused_by: set[str] = attrs.Factory(set)
    lost_by: set[str] = attrs.Factory(set)
    times_taken: int = 0
    not_before: float = 0.0


@attrs.define(eq=False)
class _Node:
    id: str
    # None while it is away.
    beginning: object = None
    state: NodeState = NodeState.ACTIVE
    held: dict[str, _Participant] = attrs.Factory(dict)
    calls: int = 0
    last_turn: int = 0
    heard_at: float = 0.0
    barred_until: float = 0.0
    handed: int = 0
    answered: int = 0
    refused: int = 0
    silent: int = 0

    def status(self) -> dict[str, int]:
        return {
            "handed": self.handed,
            "answered": self.answered,
            "unanswered": len(self.held),
            "refused": self.refused,
            "silent": self.silent,
        }


@attrs.define(eq=False)
class Assignments:
    """Decides for one stage; ``now`` is in seconds of a clock that never goes back.

    ``retry_delay`` chooses the seconds until a participant that no node took is offered again. A node is silent that
    gave no verdict on what it holds for ``silent_seconds``.
    """

    _retry_delay: Callable[[], float]
    _silent_seconds: float
    # On participants that are not known yet.
    _early_verdicts: set[str] = attrs.field(init=False, factory=set)
    _participants: dict[str, _Participant] = attrs.field(init=False, factory=dict)
    _waiting: dict[str, _Participant] = attrs.field(init=False, factory=dict)
    _nodes: dict[str, _Node] = attrs.field(init=False, factory=dict)
    _turns: int = attrs.field(init=False, default=0)
    unanswered: int = attrs.field(init=False, default=0)

    def add(self, batches: Iterable[ProofBatch]) -> None:
        """Take in one batch a participant; it replaces the one that is there, as long as no node has taken that."""
        for batch in batches:
            address = address_of(batch.public_key)
            participant = self._participants.get(address)
            if participant is None:
                participant = _Participant(address, batch)
                self._participants[address] = self._waiting[address] = participant
                self.unanswered += 1
                if address in self._early_verdicts:
                    self._move(participant, Progress.WAITING, Progress.ANSWERED)
            elif participant.progress is Progress.WAITING and not participant.times_taken:
                participant.batch = batch

    def decide(self, present: Mapping[str, object], now: float) -> Decisions:
        """Return what is to be done, where ``present`` has the ids of the nodes that validate now.

        The value of each is the same object for as long as the node has not begun anew.
        """
        examine, warnings = [], []
        for node_id in present:
            self._nodes.setdefault(node_id, _Node(node_id))
        for node in self._nodes.values():
            beginning = present.get(node.id)
            if beginning is not node.beginning:
                node.beginning = beginning
                node.state = NodeState.ACTIVE
                if node.held:
                    reason = "does not validate any more" if beginning is None else "began to validate anew"
                    warnings.append(self._take_back(node, reason))
            elif node.state is NodeState.BARRED and now >= node.barred_until:
                node.state = NodeState.ACTIVE
            elif node.state is NodeState.ACTIVE and node.held and now - node.heard_at >= self._silent_seconds:
                node.state = NodeState.EXAMINED
                examine.append(node.id)
        return Decisions(self._offers(present, now), examine, warnings)

    def accepted(self, offer: Offer, now: float) -> None:
        """Record that the node took the participant."""
        node, participant = self._nodes[offer.node_id], self._participants[offer.address]
        node.calls -= 1
        node.handed += 1
        participant.times_taken += 1
        # The verdict may come before the reply.
        if participant.progress is not Progress.ANSWERED:
            self._move(participant, Progress.OFFERED, Progress.HELD)
            participant.holder = node
            if not node.held:
                node.heard_at = now
            node.held[offer.address] = participant
            if node.beginning is not offer.beginning:
                self._lose(node, participant)

    def refused(self, offer: Offer) -> None:
        """Record that the node did not take the participant."""
        node, participant = self._nodes[offer.node_id], self._participants[offer.address]
        node.calls -= 1
        node.refused += 1
        participant.refused_by.add(node.id)
        if participant.progress is not Progress.ANSWERED:
            self._move(participant, Progress.OFFERED, Progress.WAITING)

    def record_verdict(self, address: str, now: float) -> None:
        """Record a verdict on a participant; harmless when it is told twice."""
        participant = self._participants.get(address)
        if participant is None:
            if len(self._early_verdicts) < MAX_EARLY_VERDICTS:
                self._early_verdicts.add(address)
        elif participant.progress is not Progress.ANSWERED:
            self._move(participant, participant.progress, Progress.ANSWERED)
            node = participant.holder
            if node is not None:
                del node.held[address]
                node.answered += 1
                node.heard_at = now

    def examined(self, node_id: str, now: float, *, is_loading: bool) -> str | None:
        """Record whether the node's model is loading; return a warning if it is silent, and has to be restarted."""
        node = self._nodes[node_id]
        node.state = NodeState.ACTIVE
        silent_seconds = now - node.heard_at
        if is_loading:
            node.heard_at = now
        elif node.held and silent_seconds >= self._silent_seconds:
            node.state = NodeState.BARRED
            # Nobody may have been able to restart it.
            node.barred_until = now + self._silent_seconds
            node.silent += 1
            return self._take_back(node, f"no verdict for {silent_seconds:.0f} s: has to be restarted")
        return None

    def status(self) -> dict[str, Any]:
        """Tell how far it is, in participants; ``handed`` are all whom a node took, ``waiting`` those for a node."""
        return {
            "participants": len(self._participants),
            "waiting": len(self._waiting),
            "handed": sum(participant.times_taken > 0 for participant in self._participants.values()),
            "answered": len(self._participants) - self.unanswered,
            "unanswered": self.unanswered,
            "nodes": {node.id: node.status() for node in self._nodes.values()},
        }

    def reasons(self) -> list[str]:
        """Say in words why participants have no verdict."""
        counts = Counter(participant.progress for participant in self._participants.values())
        reasons = [f"{len(node.held)} were not answered by {node.id}" for node in self._nodes.values() if node.held]
        if is_open := counts[Progress.WAITING] + counts[Progress.OFFERED]:
            reasons.append(f"{is_open} waited for a node that takes them")
        if abandoned := counts[Progress.ABANDONED]:
            reasons.append(f"{abandoned} were taken {TRIES} times without a verdict")
        return reasons

    def _offers(self, present: Collection[str], now: float) -> list[Offer]:
        """Offer the participants that wait to the nodes in turn, as far as they are free."""
        nodes = (self._nodes[node_id] for node_id in present)
        active = {node.id: node for node in nodes if node.state is NodeState.ACTIVE}
        offers = []
        for participant in list(self._waiting.values()):
            free = [node for node in active.values() if node.calls < CALLS_AT_ONCE]
            if not free:
                break
            if participant.not_before > now:
                continue
            if len(participant.refused_by) >= TRIES or active.keys() <= participant.refused_by:
                participant.refused_by.clear()
                participant.not_before = now + self._retry_delay()
                continue
            candidates = [node for node in free if node.id not in participant.refused_by]
            if candidates:
                offers.append(self._offer(participant, candidates))
        return offers

    def _offer(self, participant: _Participant, candidates: list[_Node]) -> Offer:
        """Choose a node that has not lost this participant, if there is one, and the one whose turn is the oldest."""
        node = min(candidates, key=lambda node: (node.id in participant.lost_by, node.last_turn))
        self._turns += 1
        node.last_turn = self._turns
        node.calls += 1
        self._move(participant, Progress.WAITING, Progress.OFFERED)
        return Offer(node.id, participant.address, participant.batch, node.beginning)

    def _take_back(self, node: _Node, reason: str) -> str:
        held = list(node.held.values())
        for participant in held:
            self._lose(node, participant)
        abandoned = sum(participant.progress is Progress.ABANDONED for participant in held)
        return (
            f"{node.id}: {reason}; {len(held) - abandoned} unanswered participants go to others,"
            f" {abandoned} were tried often enough"
        )

    def _lose(self, node: _Node, participant: _Participant) -> None:
        del node.held[participant.address]
        participant.holder = None
        participant.lost_by.add(node.id)
        participant.refused_by.clear()
        is_abandoned = participant.times_taken >= TRIES
        self._move(participant, Progress.HELD, Progress.ABANDONED if is_abandoned else Progress.WAITING)

    def _move(self, participant: _Participant, start: Progress, end: Progress) -> None:
        if participant.progress is not start:
            raise RuntimeError(f"{participant.address} {participant.progress.value}: it cannot become {end.name}")
        participant.progress = end
        self._waiting.pop(participant.address, None)
        if end is Progress.WAITING:
            self._waiting[participant.address] = participant
        elif end is Progress.ANSWERED:
            self.unanswered -= 1
