"""What the parts tell for ``GET /metrics``: a copy of their numbers, all of one moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from dapi import __version__
from dapi.broker.node_reconciler import NodeStanding
from dapi.broker.node_worker import NodeWorker
from dapi.chain_service import ChainService
from dapi.diagnosis.problem import Problem
from dapi.errors import StoreError
from dapi.http.listener import HttpListener
from dapi.relay.watch import Watch
from dapi.server.metric_families import ChainSample, NodeSample, PhaseSample, PortSample, Snapshot
from dapi.server.metric_tools import HistogramSample
from dapi.server.poc_v2_families import ModelSample, RelaySample, StageSample
from dapi.service.assembly import Parts

if TYPE_CHECKING:
    from dapi.relay.relay import Relay

# What the database is asked has to be answered within this time, or is left out.
_ANSWER_SECONDS = 2.0

T = TypeVar("T")


@attrs.frozen
class MetricSource:
    """Asks each part for its numbers. ``problems`` are what is wrong now."""

    _reactor: IReactorTime
    _parts: Parts
    _problems: Sequence[Problem]

    def snapshot(self) -> Deferred[Snapshot]:
        """Fire with the numbers of now; never fails for a store that is slow or broken."""
        return Deferred.fromCoroutine(self._snapshot())

    async def _snapshot(self) -> Snapshot:
        parts = self._parts
        free_bytes = await self._if_in_time(parts.database.free_bytes())
        oldest = await self._if_in_time(parts.chain.submissions.oldest_received_at()) if parts.chain else None
        # Last, so that its numbers are of the moment at which the others are copied.
        outbox = await self._if_in_time(parts.outbox.counts_by_kind())
        pending = parts.outbox.status()
        times, advice = parts.ack_times, parts.restarts.of_dapi()
        return Snapshot(
            version=__version__,
            nodes=self._nodes(),
            unnamed=copy(parts.unnamed_handler.by_http),
            unnamed_doubled=parts.unnamed_handler.counts.doubled,
            http_refused=_http_refused(parts.callbacks.counts),
            ports={"callbacks": _port(parts.callback_listener), "admin": _port(parts.admin_listener)},
            ack_seconds={
                "websocket": HistogramSample.of(times.over_websocket),
                "http": HistogramSample.of(times.by_http),
            },
            commit_seconds=HistogramSample.of(parts.database.commit_seconds),
            outbox=outbox.copy() if outbox is not None else None,
            pending=(pending["pending"], pending["pending_bytes"]),
            database=parts.database.status(),
            disk_free_bytes=free_bytes,
            chain=_chain(parts.chain, oldest) if parts.chain is not None else None,
            phases=_phases(parts.chain) if parts.chain is not None else None,
            problems=Counter((problem.id, problem.severity) for problem in self._problems),
            relay=_relay(parts.relay) if parts.relay is not None else None,
            is_restart_safe=advice.safe if advice is not None else None,
            stage=_stage(parts.poc_v2_watch) if parts.poc_v2_watch is not None else None,
        )

    def _nodes(self) -> list[NodeSample]:
        chain, broker = self._parts.chain, self._parts.broker
        standings = chain.phase_status.standings() if chain is not None and chain.phase_status is not None else {}
        workers = broker.workers() if broker.is_loaded else []
        return [_node(worker, standings) for worker in workers]

    async def _if_in_time(self, answer: Deferred[T]) -> T | None:
        try:
            return await answer.addTimeout(_ANSWER_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None


def _node(worker: NodeWorker, standings: Mapping[str, NodeStanding]) -> NodeSample:
    node, handler, client = worker.node, worker.batch_handler, worker.websocket_client
    standing = standings.get(node.id)
    status = client.connection_status()
    return NodeSample(
        node_id=node.id,
        is_enabled=node.enabled,
        websocket=status.state,
        connections=status.connections,
        interruptions=dict(client.interruptions),
        over_websocket=copy(handler.over_websocket),
        by_http=copy(handler.by_http),
        batches=copy(handler.counts),
        messages=client.message_counts(),
        has_problem=standing.problem is not None if standing is not None else worker.has_failed,
        silent_seconds=standing.silent_seconds if standing is not None else None,
    )


def _port(listener: HttpListener) -> PortSample:
    counts = listener.site.counts
    return PortSample(dict(counts.answers), listener.site.connections, counts.connections_refused)


def _http_refused(counts: msgspec.Struct) -> dict[str, int]:
    """Return the counts of the callbacks by reason: all but those of what was taken."""
    return {name: number for name, number in msgspec.structs.asdict(counts).items() if name not in _TAKEN}


_TAKEN = ("generated", "validated")


def _chain(chain: ChainService, oldest: float | None) -> ChainSample:
    status, head = chain.submitter.status(), chain.head
    now = time.time()
    return ChainSample(
        sending=status["state"],
        held=frozenset(status["held"]),
        transactions=chain.submitter.outcomes(),
        in_flight=status["transactions_in_flight"],
        nodes={node["name"]: node["standing"] for node in chain.nodes_status()},
        height=status["height"],
        block_age_seconds=max(0.0, now - head.block_time_ns / 1e9) if head is not None else None,
        clock_offset_seconds=chain.clock_offset_seconds,
        oldest_unfinished_seconds=max(0.0, now - oldest) if oldest is not None else 0.0,
    )


def _relay(relay: Relay) -> RelaySample:
    told = relay.status()
    return RelaySample(
        **{name: told[name] for name in ("counts", "waiting", "unsettled", "bytes", "passed_on", "refused")},
        held=told["held_count"],
        api_restarts=told["api_restarts"],
        away_seconds=told["away"]["seconds"] if told["away"] is not None else 0.0,
        answer_seconds=HistogramSample.of(relay.answer_seconds),
        forward_seconds=HistogramSample.of(relay.book.forward_seconds),
    )


def _stage(watch: Watch) -> StageSample:
    epochs, newest = watch.knowledge.epochs, max((height for height, _ in watch.stages), default=0)
    records = {model: each.record for (height, model), each in sorted(watch.stages.items()) if height == newest}
    ends = [record.end for record in records.values() if epochs is not None and epochs.block_height <= record.end]
    return StageSample(
        models={
            model: ModelSample(record.stored, record.committed, record.participants, record.votes)
            for model, record in records.items()
        },
        height=epochs.block_height if epochs is not None else None,
        blocks_left=min(ends) - epochs.block_height if epochs is not None and ends else None,
    )


def _phases(chain: ChainService) -> PhaseSample | None:
    conductor, status = chain.conductor, chain.phase_status
    if conductor is None or status is None:
        return None
    situation, validation = conductor.situation, conductor.validation
    return PhaseSample(
        phase=situation.phase if situation is not None else None,
        blocks_left=situation.blocks_left if situation is not None else None,
        outbox_blocks_left=conductor.blocks_left,
        validation=validation.counts() if validation is not None else None,
    )
