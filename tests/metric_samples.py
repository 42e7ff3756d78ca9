"""A snapshot of parts, and metrics read back from their text."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dapi.database.service import DatabaseState
from dapi.outbox.counts import Counts
from dapi.phases.phases import Phase
from dapi.poc.batch_handler import BatchCounts, WayCounts
from dapi.poc.message_intake import MessageCounts
from dapi.server.metric_families import ChainSample, NodeSample, PhaseSample, PortSample, Snapshot
from dapi.server.metric_tools import HistogramSample
from dapi.server.poc_v2_families import ModelSample, RelaySample, StageSample
from dapi.timing.histogram import Histogram
from dapi.websocket.client import WebSocketState

Series = tuple[str, frozenset[tuple[str, str]]]


def node_sample(node_id: str, **fields: Any) -> NodeSample:
    values: dict[str, Any] = {
        "is_enabled": True,
        "websocket": WebSocketState.OPEN,
        "connections": 1,
        "interruptions": {},
        "over_websocket": WayCounts(),
        "by_http": WayCounts(),
        "batches": BatchCounts(),
        "messages": MessageCounts(),
    }
    return NodeSample(node_id=node_id, **(values | fields))


def snapshot(**fields: Any) -> Snapshot:
    nothing = HistogramSample.of(Histogram())
    values: dict[str, Any] = {
        "version": "1",
        "nodes": [],
        "unnamed": WayCounts(),
        "unnamed_doubled": 0,
        "http_refused": {},
        "ports": {"callbacks": PortSample({}, 0, 0)},
        "ack_seconds": {"websocket": nothing, "http": nothing},
        "commit_seconds": nothing,
        "outbox": Counts(),
        "pending": (0, 0),
        "database": {"state": DatabaseState.OK, "bytes": 1, "wal_bytes": 2, "writing_seconds": 0.0},
        "disk_free_bytes": 3,
        "chain": None,
        "phases": None,
        "problems": {},
    }
    return Snapshot(**(values | fields))


def relay_sample(**fields: Any) -> RelaySample:
    nothing = HistogramSample.of(Histogram())
    values: dict[str, Any] = {
        "counts": {},
        "waiting": 2,
        "unsettled": 3,
        "held": 1,
        "bytes": 500,
        "passed_on": 6,
        "refused": 7,
        "api_restarts": 8,
        "away_seconds": 9.5,
        "answer_seconds": nothing,
        "forward_seconds": nothing,
    }
    return RelaySample(**(values | fields))


def series_of(text: bytes) -> dict[Series, float]:
    """Read a scrape: the value of each series."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value_of(series: dict[Series, float], name: str, **labels: str) -> float | None:
    """Return the value of one series, None where it is not there."""
    return series.get((name, frozenset(labels.items())))


def whole_snapshot() -> Snapshot:
    """A snapshot that has something of every part, so that no family is left out."""
    chain = ChainSample("submitting", frozenset(), {("confirmed", "0"): 1}, 1, {"n": "sound"}, 1, 1.0, 1.0, 1.0)
    phases = PhaseSample(Phase.VALIDATE, 1, 1, {"participants": 1, "handed": 1, "answered": 1})
    node = node_sample("a", interruptions={"lost": 1}, silent_seconds=1.0)
    stage = StageSample({"m": ModelSample(1, 1, 1, 1)}, 1, 1)
    ports = {"admin": PortSample({200: 1}, 1, 1)}
    parts = {"relay": relay_sample(), "stage": stage, "is_restart_safe": True}
    return snapshot(nodes=[node], chain=chain, phases=phases, ports=ports, **parts)
