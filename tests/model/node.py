"""An ML node, as far as dapi meets it: the answers of its HTTP API, and the batches that it makes."""

from __future__ import annotations

from typing import Any

import msgspec

from dapi.messages import ProofBatch, ValidatedBatch
from dapi.mlnode.client import FRAUD_THRESHOLD, R_TARGET
from tests.model.network import Answer, Host

# Of what the node keeps to bring it again.
_MADE_KEPT = 12


class ModelNode(Host):
    """Generates while it is told to, and keeps its latest batches: any of them may be brought again, whenever.

    ``to_validate`` are the batches that it was given to judge.
    """

    def __init__(self, node_id: str) -> None:
        super().__init__(self._answer)
        self.node_id = node_id
        self.state = "STOPPED"
        self.pow_status = "NOT_LOADED"
        self.init: dict[str, Any] | None = None
        self.made: list[ProofBatch] = []
        self.to_validate: list[dict[str, Any]] = []
        self._nonces_made = 0

    @property
    def is_generating(self) -> bool:
        return self.state == "POW" and self.pow_status == "GENERATING"

    def restart(self) -> None:
        """Lose what runs, as after a crash."""
        self.state, self.pow_status, self.init = "STOPPED", "NOT_LOADED", None

    def make(self, count: int, **changes: Any) -> ProofBatch:
        """Make a batch of the present run, with nonces that no other batch has."""
        assert self.init is not None
        first, self._nonces_made = self._nonces_made, self._nonces_made + count
        numbers = [self.init["node_id"] + self.init["node_count"] * each for each in range(first, first + count)]
        fields = {name: self.init[name] for name in ("public_key", "block_hash", "block_height", "node_id")}
        fields |= {"nonces": numbers, "dist": [0.5 + number % 7 / 8 for number in numbers], **changes}
        batch = msgspec.convert(fields, ProofBatch)
        self.made = [*self.made[1 - _MADE_KEPT :], batch]
        return batch

    def judge(self, given: dict[str, Any]) -> ValidatedBatch:
        """Make the verdict on a batch that the node was given."""
        values = {"received_dist": given["dist"], "r_target": R_TARGET, "fraud_threshold": FRAUD_THRESHOLD}
        verdict = {"n_invalid": 0, "probability_honest": 1.0, "fraud_detected": False}
        return msgspec.convert({**given, **values, **verdict}, ValidatedBatch)

    def _answer(self, method: str, path: str, body: Any) -> Answer:
        call = path.removeprefix("/api/v1/").removeprefix("/")
        match call:
            case "state":
                return 200, {"state": self.state}
            case "stop":
                self.restart()
            case "pow/init/generate" | "pow/init/validate":
                self.state, self.init = "POW", body
                self.pow_status = "GENERATING" if call.endswith("generate") else "VALIDATING"
                return 200, {"status": "OK", "pow_status": self._pow()}
            case "pow/status":
                return (200, self._pow()) if self.state == "POW" else (409, {"detail": "no"})
            case "pow/validate":
                if self.state != "POW":
                    return 400, {"detail": "PoW is not running"}
                self.to_validate.append(body)
                return 200, None
            case "inference/up":
                self.restart()
                self.state = "INFERENCE"
            case "health":
                return (200, {}) if self.state == "INFERENCE" else (503, {})
            case _:
                return 404, {}
        return 200, {"status": "OK"}

    def _pow(self) -> dict[str, Any]:
        return {"status": self.pow_status, "is_model_initialized": True}
