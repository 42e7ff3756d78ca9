"""Answers questions about the phases that the conductor follows; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dapi.broker.node_reconciler import NodeStanding
from dapi.broker.reconciler import Reconciler
from dapi.orchestration.claims import Claim
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.host import Host
from dapi.orchestration.stages import StageBook, StageRecord
from dapi.phases.phases import Phase
from dapi.phases.restart import BLOCKS_FOR_A_RESTART, RestartAdvice


@attrs.frozen
class PhaseStatus:
    """What ``GET status`` (under ``chain.poc``), ``GET epochs`` and ``GET restart`` show."""

    _conductor: Conductor
    _reconciler: Reconciler
    _stages: StageBook
    _host: Host | None = None

    def status(self) -> dict[str, Any]:
        """Tell the phase, what keeps it from being followed, what is urgent, and how far validation is."""
        validation = self._conductor.validation
        return {
            "situation": self._conductor.situation,
            "problem": self._conductor.problem,
            "stage": self._conductor.standing,
            "nodes": self._reconciler.status(),
            "not_of_their_stage": self._conductor.comparison.status(),
            "validation": validation.status() if validation is not None else None,
            "host": self._host.status() if self._host is not None else None,
        }

    def standings(self) -> dict[str, NodeStanding]:
        """Return where each enabled node stands."""
        return self._reconciler.status()

    def latest_stages(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        """Fire with the latest stages, the newest first, each with what became of each node's work, and its worth.

        Fails with StoreError.
        """
        return Deferred.fromCoroutine(self._latest_stages(limit))

    async def _latest_stages(self, limit: int) -> list[dict[str, Any]]:
        claims = await self._host.claims() if self._host is not None else {}
        return [await self._stage(record, claims) for record in await self._stages.latest(limit)]

    async def _stage(self, record: StageRecord, claims: Mapping[int, Claim]) -> dict[str, Any]:
        stage, host = record.stage, self._host
        ledger = await self._stages.ledger(stage.height)
        return {
            **msgspec.structs.asdict(stage),
            "node_count": record.node_count,
            "is_handed_out": record.is_handed_out,
            "nodes": {
                node_id: {
                    **msgspec.structs.asdict(node),
                    **(host.node_earnings(stage, node_id, node) if host is not None else {}),
                }
                for node_id, node in ledger.items()
            },
            **(host.earnings(stage, claims) if host is not None else {}),
        }

    @property
    def runs_v1(self) -> bool:
        """Whether the chain is known to run PoC v1 now."""
        return self._conductor.situation is not None and self._conductor.problem is None

    def restart_advice(self) -> RestartAdvice:
        """Tell whether dapi may be restarted now without harm to PoC v1, which does nothing on a network with v2."""
        situation, problem = self._conductor.situation, self._conductor.problem
        if self._conductor.is_moved:
            return RestartAdvice(True)
        if situation is None or problem is not None:
            return RestartAdvice(False, "where the chain is, is not known now" + (f": {problem}" if problem else ""))
        if situation.phase is not Phase.INFERENCE:
            return RestartAdvice(False, f"the chain is in {situation.phase}", 0)
        left = situation.blocks_left
        reason = f"PoC starts in {left} blocks" if left < BLOCKS_FOR_A_RESTART else None
        return RestartAdvice(reason is None, reason, left)
