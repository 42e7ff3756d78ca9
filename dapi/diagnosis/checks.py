"""All checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from dapi.diagnosis import (
    callbacks,
    chain,
    doors,
    host,
    nodes,
    poc_v2_watch,
    process,
    relay,
    sending,
    stage,
    storage,
    websockets,
)
from dapi.diagnosis.problem import Finding, Status

CHECKS: Final[tuple[Callable[[Status], Iterator[Finding]], ...]] = (
    *(storage.database, storage.hanging_disk, storage.slow_disk, storage.quotas),
    *(chain.chain, chain.chain_nodes, chain.clock),
    *(sending.held, sending.expiring_grant, sending.failing, sending.late, sending.lost),
    *(stage.phases, stage.seed, stage.kept_for_nothing, stage.preserved, stage.ids_taken, stage.validation),
    *(host.upkeep, host.node_version, host.declared_nodes, host.weight, host.claims),
    *(nodes.registration, nodes.failures, nodes.elsewhere, nodes.silence, nodes.other_runs, nodes.other_numbers),
    *(websockets.websockets, callbacks.url, callbacks.unreached),
    relay.relay,
    poc_v2_watch.watch,
    *(process.files, doors.callbacks, doors.certificate, doors.admin),
)


def findings(status: Status) -> list[Finding]:
    """Return all that is wrong by this status, whether it has lasted long enough or not."""
    return [finding for check in CHECKS for finding in check(status)]
