"""The names of the metrics: a Snapshot of the parts in, Prometheus' families out. Pure.

Every label has few values, whatever comes from outside: ``node_id`` is a registered node's, all others are words of
dapi. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client import Metric

from dapi.chain.nodes import Standing
from dapi.database.service import DatabaseState
from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.messages import Kind, State
from dapi.outbox.counts import Counts
from dapi.phases.phases import Phase
from dapi.poc.batch_handler import BatchCounts, WayCounts
from dapi.poc.message_intake import MessageCounts
from dapi.server.metric_tools import HistogramSample, Rows, counter, gauge, histogram, known
from dapi.server.poc_v2_families import RelaySample, StageSample, poc_v2
from dapi.websocket.client import WebSocketState

SENDING_STATES = ("submitting", "held", "waiting", "moved")
"""What ``Submitter.status`` says of the sending."""


class NodeSample(msgspec.Struct, frozen=True):
    """One registered node. ``has_problem``: a command or a question to it failed last."""

    node_id: str
    is_enabled: bool
    websocket: WebSocketState
    connections: int
    interruptions: Mapping[str, int]
    over_websocket: WayCounts
    by_http: WayCounts
    batches: BatchCounts
    messages: MessageCounts
    has_problem: bool = False
    silent_seconds: float | None = None


class PortSample(msgspec.Struct, frozen=True):
    """One of the two ports: answers by status, connections that are open, and that were refused."""

    answers: Mapping[int, int]
    connections: int
    connections_refused: int


class ChainSample(msgspec.Struct, frozen=True):
    """What is known of the chain, and how the sending goes. What is not known is None."""

    sending: str
    held: frozenset[str]
    transactions: Mapping[tuple[str, str], int]
    in_flight: int
    nodes: Mapping[str, str]
    height: int | None = None
    block_age_seconds: float | None = None
    clock_offset_seconds: float | None = None
    oldest_unfinished_seconds: float | None = None


class PhaseSample(msgspec.Struct, frozen=True):
    """Where the chain is in its epoch, and the validation that is under way."""

    phase: str | None = None
    blocks_left: int | None = None
    outbox_blocks_left: int | None = None
    validation: Mapping[str, int] | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """What the parts told, at one moment. None stands for what could not be told, or for a part that is not there."""

    version: str
    nodes: list[NodeSample]
    unnamed: WayCounts
    unnamed_doubled: int
    http_refused: Mapping[str, int]
    ports: Mapping[str, PortSample]
    ack_seconds: Mapping[str, HistogramSample]
    commit_seconds: HistogramSample
    outbox: Counts | None
    pending: tuple[int, int]
    database: Mapping[str, Any]
    disk_free_bytes: int | None
    chain: ChainSample | None
    phases: PhaseSample | None
    problems: Mapping[tuple[ProblemId, Severity], int]
    relay: RelaySample | None = None
    stage: StageSample | None = None
    is_restart_safe: bool | None = None


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield every family with its samples; a family whose values are not known has none."""
    yield gauge("dapi_build_info", "The version of dapi; always 1", ["version"], [(snapshot.version, 1)])
    yield from _nodes(snapshot.nodes)
    yield from _received(snapshot)
    yield from _batches(snapshot)
    yield from _ports(snapshot.ports)
    yield from _outbox(snapshot)
    yield from _database(snapshot)
    yield from _chain(snapshot.chain)
    yield from _phases(snapshot.phases)
    safe = known(snapshot.is_restart_safe)
    yield gauge("dapi_restart_safe", "Whether dapi may be restarted without harm", [], safe)
    yield from poc_v2(snapshot.relay, snapshot.stage)
    problems = {(each, each.severity): 0 for each in ProblemId} | dict(snapshot.problems)
    yield gauge(
        "dapi_problems",
        "What is wrong now, as the status tells it: the number of problems of each kind",
        ["id", "severity"],
        [(each, severity, number) for (each, severity), number in problems.items()],
    )


def _nodes(nodes: list[NodeSample]) -> Iterator[Metric]:
    yield gauge(
        "dapi_node_enabled",
        "Whether the node takes part",
        ["node_id"],
        [(node.node_id, node.is_enabled) for node in nodes],
    )
    yield gauge(
        "dapi_node_failing",
        "Whether the last command or question to the node failed",
        ["node_id"],
        [(node.node_id, node.has_problem) for node in nodes],
    )
    yield gauge(
        "dapi_node_silent_seconds",
        "Time since the last batch of a node that is to generate; only for such nodes",
        ["node_id"],
        [(node.node_id, node.silent_seconds) for node in nodes if node.silent_seconds is not None],
    )
    yield gauge(
        "dapi_websocket_state",
        "The state of the node's WebSocket: 1 for the one that it is in",
        ["node_id", "state"],
        [(node.node_id, state, node.websocket is state) for node in nodes for state in WebSocketState],
    )
    yield counter(
        "dapi_websocket_connections",
        "Upgrades that the node accepted",
        ["node_id"],
        [(node.node_id, node.connections) for node in nodes],
    )
    yield counter(
        "dapi_websocket_reconnects",
        "Attempts that failed and connections that ended by themselves, each followed by another attempt, by cause",
        ["node_id", "cause"],
        [(node.node_id, cause, number) for node in nodes for cause, number in node.interruptions.items()],
    )


def _received(snapshot: Snapshot) -> Iterator[Metric]:
    ways = [
        (node.node_id, way, counts)
        for node in snapshot.nodes
        for way, counts in (("websocket", node.over_websocket), ("http", node.by_http))
    ]
    # Verdicts that come by HTTP name no node.
    ways.append(("", "http", snapshot.unnamed))
    yield counter(
        "dapi_batches_received",
        "Valid batches that came, those that came again included",
        ["node_id", "way", "kind"],
        (
            row
            for node_id, way, counts in ways
            for row in (
                (node_id, way, Kind.GENERATED, counts.generated),
                (node_id, way, Kind.VALIDATED, counts.validated),
            )
        ),
    )
    yield counter(
        "dapi_batches_received_bytes",
        "The bytes in which valid batches came",
        ["node_id", "way", "kind"],
        (
            row
            for node_id, way, counts in ways
            for row in (
                (node_id, way, Kind.GENERATED, counts.generated_bytes),
                (node_id, way, Kind.VALIDATED, counts.validated_bytes),
            )
        ),
    )


def _batches(snapshot: Snapshot) -> Iterator[Metric]:
    nodes = snapshot.nodes
    refused = [
        row
        for node in nodes
        for row in (
            (node.node_id, "websocket", "bad_message", node.messages.bad_messages),
            (node.node_id, "websocket", "not_stored", node.messages.not_stored),
            (node.node_id, "websocket", "error", node.messages.errors),
        )
    ]
    refused += [("", "http", reason, number) for reason, number in snapshot.http_refused.items()]
    yield counter("dapi_batches_refused", "Batches that were not acknowledged", ["node_id", "way", "reason"], refused)
    yield counter(
        "dapi_batches_doubled",
        "Batches that came again, and were kept once",
        ["node_id"],
        [("", snapshot.unnamed_doubled), *((node.node_id, node.batches.doubled) for node in nodes)],
    )
    yield histogram(
        "dapi_ack_seconds",
        "From a batch's arrival to its acknowledgement, when it is on disk",
        ["way"],
        [(way, sample) for way, sample in snapshot.ack_seconds.items()],
    )


def _ports(ports: Mapping[str, PortSample]) -> Iterator[Metric]:
    yield counter(
        "dapi_http_answers",
        "Answers by status",
        ["port", "code"],
        [(name, str(code), number) for name, port in ports.items() for code, number in port.answers.items()],
    )
    yield gauge(
        "dapi_http_connections",
        "Open connections",
        ["port"],
        [(name, port.connections) for name, port in ports.items()],
    )
    yield counter(
        "dapi_http_connections_refused",
        "Connections that were closed for being too many",
        ["port"],
        [(name, port.connections_refused) for name, port in ports.items()],
    )


def _outbox(snapshot: Snapshot) -> Iterator[Metric]:
    counts = snapshot.outbox
    rows = () if counts is None else [(kind, state, counts[kind, state]) for kind in Kind for state in State]
    yield gauge("dapi_outbox_messages", "Messages that are kept", ["kind", "state"], rows)
    number, size = snapshot.pending
    yield gauge("dapi_outbox_pending_messages", "Messages that are not on disk yet", [], [(number,)])
    yield gauge("dapi_outbox_pending_bytes", "The bytes of messages that are not on disk yet", [], [(size,)])
    oldest = snapshot.chain.oldest_unfinished_seconds if snapshot.chain is not None else None
    yield gauge(
        "dapi_outbox_oldest_unfinished_seconds",
        "Time since the oldest message came that is neither confirmed nor failed nor expired; 0 without one",
        [],
        known(oldest),
    )
    left = snapshot.phases.outbox_blocks_left if snapshot.phases is not None else None
    yield gauge(
        "dapi_outbox_blocks_left",
        "Blocks until the next window ends in which a message is unfinished; only while there is one",
        [],
        known(left),
    )


def _database(snapshot: Snapshot) -> Iterator[Metric]:
    found = snapshot.database
    yield gauge(
        "dapi_database_state",
        "The state of the database: 1 for the one that it is in",
        ["state"],
        [(state, found["state"] is state) for state in DatabaseState],
    )
    yield gauge("dapi_database_bytes", "The size of the database's file", [], [(found["bytes"],)])
    yield gauge("dapi_database_wal_bytes", "The size of the write-ahead log", [], [(found["wal_bytes"],)])
    yield gauge(
        "dapi_database_writing_seconds",
        "For how long the current write has been running, 0 without one",
        [],
        [(found["writing_seconds"],)],
    )
    yield gauge("dapi_disk_free_bytes", "Free bytes on the database's disk", [], known(snapshot.disk_free_bytes))
    yield histogram(
        "dapi_database_commit_seconds", "What writes to the database took", [], [(snapshot.commit_seconds,)]
    )


def _chain(chain: ChainSample | None) -> Iterator[Metric]:
    rows: Rows = () if chain is None else [(state, chain.sending == state) for state in SENDING_STATES]
    yield gauge("dapi_sending_state", "How the sending goes: 1 for the state that it is in", ["state"], rows)
    rows = () if chain is None else [(kind, kind in chain.held) for kind in Kind]
    yield gauge("dapi_sending_held", "Whether messages of a kind are held until people mend it", ["kind"], rows)
    # There from the beginning: without it nobody sees that none is confirmed.
    transactions = {("confirmed", "0"): 0, **(chain.transactions if chain is not None else {})}
    rows = () if chain is None else [(*labels, number) for labels, number in transactions.items()]
    yield counter("dapi_transactions", "Transactions by what became of them", ["outcome", "code"], rows)
    in_flight = chain.in_flight if chain is not None else None
    yield gauge("dapi_transactions_in_flight", "Transactions that wait for a block", [], known(in_flight))
    height = chain.height if chain is not None else None
    yield gauge("dapi_chain_height", "The height of the latest block", [], known(height))
    age = chain.block_age_seconds if chain is not None else None
    yield gauge("dapi_chain_block_age_seconds", "Time since the latest block", [], known(age))
    offset = chain.clock_offset_seconds if chain is not None else None
    text = "How far this machine's clock is ahead of the time of the blocks"
    yield gauge("dapi_chain_clock_offset_seconds", text, [], known(offset))
    rows = () if chain is None else [(name, standing == Standing.SOUND) for name, standing in chain.nodes.items()]
    yield gauge("dapi_chain_node_sound", "Whether the chain node can be relied on", ["chain_node"], rows)


def _phases(phases: PhaseSample | None) -> Iterator[Metric]:
    current = phases.phase if phases is not None else None
    rows = () if current is None else [(phase, phase == current) for phase in Phase]
    yield gauge("dapi_chain_phase", "The phase of the chain: 1 for the one that it is in", ["phase"], rows)
    left = phases.blocks_left if phases is not None else None
    yield gauge("dapi_chain_phase_blocks_left", "Blocks until the window ends, or until PoC", [], known(left))
    validation = (phases.validation if phases is not None else None) or {}
    for name, field, text in (
        ("dapi_validation_participants", "participants", "Participants to validate in the stage that is under way"),
        ("dapi_validation_handed_out", "handed", "Participants that a node has taken"),
        ("dapi_validation_answered", "answered", "Participants on whom there is a verdict"),
    ):
        yield gauge(name, text, [], known(validation.get(field)))
