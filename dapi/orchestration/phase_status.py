"""Answers questions about the phases that the conductor follows; changes nothing."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred

from dapi.broker.reconciler import Reconciler
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.stages import StageBook
from dapi.phases.phases import Phase

# What a restart of dapi and a failed command or two may take.
_BLOCKS_FOR_A_RESTART = 10


@attrs.frozen
class PhaseStatus:
    """What ``GET status`` (under ``chain.poc``), ``GET epochs`` and ``GET restart`` show."""

    _conductor: Conductor
    _reconciler: Reconciler
    _stages: StageBook

    def status(self) -> dict[str, Any]:
        """Tell the phase, what keeps it from being followed, what is urgent, and how far validation is."""
        validation = self._conductor.validation
        return {
            "situation": self._conductor.situation,
            "problem": self._conductor.problem,
            "warnings": list(self._conductor.warnings.values()),
            "nodes": self._reconciler.status(),
            "validation": validation.status() if validation is not None else None,
        }

    def latest_stages(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        """Fire with the latest stages, the newest first, each with what became of each node's work in it.

        Fails with StoreError.
        """
        return Deferred.fromCoroutine(self._latest_stages(limit))

    async def _latest_stages(self, limit: int) -> list[dict[str, Any]]:
        return [
            {
                **msgspec.structs.asdict(record.stage),
                "node_count": record.node_count,
                "is_handed_out": record.is_handed_out,
                "nodes": await self._stages.ledger(record.stage.height),
            }
            for record in await self._stages.latest(limit)
        ]

    def restart_advice(self) -> dict[str, Any]:
        """Tell whether dapi may be restarted now without harm (``safe``), why not, and for how many blocks it may."""
        situation, problem = self._conductor.situation, self._conductor.problem
        reason: str | None = "where the chain is, is not known now" + (f": {problem}" if problem is not None else "")
        if situation is None or problem is not None:
            return {"safe": False, "reason": reason, "blocks_left": None}
        if situation.phase is not Phase.INFERENCE:
            return {"safe": False, "reason": f"the chain is in {situation.phase}", "blocks_left": 0}
        left = situation.blocks_left
        reason = f"PoC starts in {left} blocks" if left < _BLOCKS_FOR_A_RESTART else None
        return {"safe": reason is None, "reason": reason, "blocks_left": left}
