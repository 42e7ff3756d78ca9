"""All checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from dapi.diagnosis import callbacks, chain, doors, nodes, poc_v2_watch, relay, storage
from dapi.diagnosis.problem import Finding, Status

CHECKS: Final[tuple[Callable[[Status], Iterator[Finding]], ...]] = (
    storage.database,
    storage.hanging_disk,
    chain.chain,
    chain.sending,
    chain.chain_nodes,
    chain.clock,
    chain.phases,
    nodes.registration,
    nodes.failures,
    nodes.websockets,
    callbacks.unreached,
    doors.callbacks,
    relay.relay,
    poc_v2_watch.watch,
    doors.admin,
)


def findings(status: Status) -> list[Finding]:
    """Return all that is wrong by this status, whether it has lasted long enough or not."""
    return [finding for check in CHECKS for finding in check(status)]
