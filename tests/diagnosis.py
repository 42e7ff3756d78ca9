"""What the diagnosis says of a stage and of the host's tasks, for tests of what tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dapi.diagnosis import host, sending, stage

_CHECKS = (
    *(sending.late, stage.seed, stage.kept_for_nothing, stage.preserved, stage.ids_taken),
    *(host.upkeep, host.node_version, host.declared_nodes, host.weight, host.claims),
)


def told(poc: Mapping[str, Any]) -> list[str]:
    """Return what is wrong by what ``GET status`` shows under ``chain.poc``: each problem in words."""
    status = {"chain": {"poc": msgspec.to_builtins(poc, str_keys=True)}}
    return [finding.problem for check in _CHECKS for finding in check(status)]
