"""What a host does beside the PoC itself so that it is paid: its tasks are looked after at each block.

``Declaring`` (hardware.py) has the chain know the nodes before a PoC starts. ``Claiming`` (claims.py) has it pay for
the epoch before. ``Counting`` (counting.py) asks what it counts, and ``VersionFollowing`` (node_version.py) below which
path the nodes answer. What they have to send goes the way of all messages (see ``dapi.submission``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Protocol

from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, NotReadyError, StoreError
from dapi.orchestration.claims import Claim, Claiming
from dapi.orchestration.counting import Counting
from dapi.orchestration.hardware import Declaring
from dapi.orchestration.node_version import VersionFollowing
from dapi.outbox.ledger import NodeLedger
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.host_queries import is_unknown_query
from dapi.phases.phases import EpochInfo, PocStage
from dapi.phases.poc_version import PocVersion
from dapi.submission.chain_identity import ChainIdentity
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.loop import LoopService, Wake
from dapi.timing.retry import RetryDelay

_LOOK_AGAIN_SECONDS = 30.0
# To ask again after a few seconds helps against what is usual, a node that was restarted for instance.
_LATE_SECONDS = 300.0
_DIGITS = re.compile(r"\d+")
_ERRORS = (ChainError, NotReadyError, StoreError)


class HostTask(Protocol):
    """One thing to look after."""

    name: str

    async def look(self, info: EpochInfo) -> None:
        """Do what is due now; raises ChainError, NotReadyError or StoreError, and is then called again soon."""

    def status(self) -> Any:
        """Return how it stands, as values for JSON."""


class Host(LoopService):
    """Looks after its tasks at each block, after each change of the nodes, and every 30 seconds without either.

    Level-triggered: a task asks what is, and does what is missing, so a missed block, a failed query or a restart
    delays it, and never skips it. A task that fails, or breaks, keeps no other from its turn; one whose query the chain
    does not know is left out, which is said once. ``declaring`` and ``claiming`` are None where somebody else does it.
    While the network runs PoC v2 nothing is looked after: its own software does it.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        identity: ChainIdentity,
        broker: Broker,
        *,
        version: VersionFollowing,
        declaring: Declaring | None,
        claiming: Claiming | None,
        counting: Counting,
        poc_version: PocVersion,
        random: Random,
    ) -> None:
        super().__init__(reactor)
        self._claiming = claiming
        self._counting = counting
        self._rpc = rpc
        self._watcher = watcher
        self._poc_version = poc_version
        self._identity = identity
        tasks: Sequence[HostTask | None] = (version, declaring, claiming, counting)
        self._tasks = [task for task in tasks if task is not None]
        self._problems: dict[str, str] = {}
        self._problem_since: dict[str, float] = {}
        # Of these, the chain does not know the query.
        self._unknown: set[str] = set()
        self._logged: dict[str, str] = {}
        self._log_limit = OncePerMinute(reactor)
        self._retry_delay = RetryDelay(random)
        self._wake = Wake(reactor)
        watcher.observe(self._wake.ring)
        broker.observe_changes(self._wake.ring)

    def status(self) -> dict[str, Any]:
        """Return how each task stands, and under ``problems`` what keeps which of them from its turn.

        ``late`` are those that were kept from it for five minutes and more.
        """
        problems = {**self._problems, **({"host": self.loop_problem} if self.loop_problem is not None else {})}
        now = self._reactor.seconds()
        late = [
            name
            for name in self._problems
            if name not in self._unknown and now - self._problem_since[name] >= _LATE_SECONDS
        ]
        return {**{task.name: task.status() for task in self._tasks}, "problems": problems, "late": late}

    async def loop(self) -> None:
        """Take turns for as long as the service runs."""
        while self.running:
            await self._turn()
            if self.running:
                is_retried = self._problems.keys() - self._unknown
                await self._wake.wait(self._retry_delay() if is_retried else _LOOK_AGAIN_SECONDS)

    async def _turn(self) -> None:
        head = self._watcher.head
        if head is None or self._watcher.problem is not None:
            return
        try:
            await self._identity.enter(head)
            info = await epoch_info(self._rpc, head.height)
        except (ChainError, StoreError) as error:
            self._record_problem("epoch", error)
            return
        self._over("epoch")
        self._poc_version.learn(info)
        if not self._poc_version.is_v1:
            return
        await self._look_after_all(info)

    async def _look_after_all(self, info: EpochInfo) -> None:
        for task in self._tasks:
            if not self.running:
                return
            try:
                await task.look(info)
            except _ERRORS as error:
                self._record_problem(task.name, error)
            except Exception as error:  # noqa: BLE001 - a defect in one task must not cost what the others are for
                problem = f"broke, see the log: {type(error).__name__}: {error}"
                if self.running and problem != self._problems.get(task.name):
                    self.log.failure("{name} broke, which it never should", name=task.name)
                self._keep_problem(task.name, problem)
            else:
                self._over(task.name)

    async def claims(self) -> dict[int, Claim]:
        """Return what became of the latest claims, by epoch; raises StoreError."""
        return await self._claiming.claims() if self._claiming is not None else {}

    def earnings(self, stage: PocStage, claims: Mapping[int, Claim]) -> dict[str, Any]:
        """Return what an epoch weighs, and what was paid for it; None: not known, or not yet."""
        if stage.is_confirmation:
            return {}
        weight, claim = self._counting.weight(stage.epoch_index), claims.get(stage.epoch_index)
        return {
            "weight": weight.base if weight is not None else None,
            "effective_weight": weight.effective if weight is not None else None,
            "claim": claim,
        }

    def node_earnings(self, stage: PocStage, node_id: str, ledger: NodeLedger) -> dict[str, Any]:
        """Return what a node weighs in a stage, and why its confirmed batches count nothing, if they do."""
        if stage.is_confirmation:
            return {}
        weight = self._counting.weight(stage.epoch_index)
        return {
            "weight": weight.nodes.get(node_id) if weight is not None else None,
            "not_counted": self._counting.not_counted(stage.epoch_index, node_id, ledger),
        }

    def _over(self, name: str) -> None:
        self._problems.pop(name, None)
        self._problem_since.pop(name, None)
        self._logged.pop(name, None)
        self._unknown.discard(name)

    def _record_problem(self, name: str, error: Exception) -> None:
        (self._unknown.add if is_unknown_query(error) else self._unknown.discard)(name)
        # Other heights in it are no news, and what the stop breaks off is no problem.
        shape = _DIGITS.sub("#", str(error))
        if self.running and shape != self._logged.get(name) and self._log_limit.is_due(name):
            self._logged[name] = shape
            text = "{name}: trying again in a few seconds: {error}"
            if name in self._unknown:
                text = "{name}: left out, because this chain does not know the query: {error}"
            self.log.warn(text, name=name, error=str(error))
        self._keep_problem(name, str(error))

    def _keep_problem(self, name: str, problem: str) -> None:
        self._problem_since.setdefault(name, self._reactor.seconds())
        self._problems[name] = problem
