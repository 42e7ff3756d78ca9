"""What the admin API answers, as types: they encode the answers, and the descriptions of the ports are made of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from dapi.broker.node_worker import WorkerStatus
from dapi.broker.node_worker_commands import CommandResult
from dapi.broker.nodes import Node, NodeConfig
from dapi.broker.rehearsal import RehearsalState, RehearsalStep
from dapi.diagnosis.problem import Problem
from dapi.phases.restart import RestartAdvice


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What was wrong, and what to do."""

    error: str


class NodeAnswer(NodeConfig, frozen=True, kw_only=True):
    """A node as it is registered: its configuration and its number."""

    node_num: int

    @classmethod
    def of(cls, node: Node) -> NodeAnswer:
        """Show a node; what follows the question mark of its WebSocket's URL may be a token, and is hidden."""
        fields = msgspec.structs.asdict(node.config)
        path, mark, _secret = node.config.websocket_url.partition("?")
        return cls(**{**fields, "websocket_url": f"{path}?(hidden)" if mark else path}, node_num=node.num)


class NodeBody(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node as it is given: its id stands in the path, too, and its number is ignored."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]
    node_num: int | msgspec.UnsetType = msgspec.UNSET


class NodeState(msgspec.Struct, frozen=True):
    """A node, and what its worker does."""

    node: NodeAnswer
    state: WorkerStatus


class NodeRefusal(msgspec.Struct, frozen=True):
    """One of several nodes that was not accepted: its place in the list, its id if it has one, and why."""

    index: int
    id: Any
    error: str


class NodesAnswer(msgspec.Struct, frozen=True):
    """Which of several nodes were accepted, and which were not."""

    nodes: list[NodeAnswer]
    errors: list[NodeRefusal]


class NodeMessage(msgspec.Struct, frozen=True):
    """What was done with a node."""

    message: str
    node_id: str


class BatchMessage(msgspec.Struct, frozen=True):
    """What was done with a batch."""

    message: str
    batch_id: str


class RetriedAnswer(msgspec.Struct, frozen=True):
    """How many batches are sent again; ``next`` is the cursor for those that are left, null when none is."""

    retried: int
    next: int | None


class CommandAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a command ended: see CommandResult. ``succeeded`` is null while it goes on."""

    succeeded: bool | None
    status: str
    error: str | None
    is_model_initialized: bool | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, result: CommandResult | None) -> CommandAnswer:
        """Show how a command ended; None: it goes on."""
        if result is None:
            return cls(None, "pending", None)
        return cls(result.succeeded, result.status, result.error, result.is_model_initialized)


class CommandProgress(msgspec.Struct, frozen=True):
    """How far a command to all enabled nodes is: at how many of them it succeeded, failed, or is pending."""

    duty: str
    began_at: str
    nodes: int
    succeeded: int
    failed: int
    pending: int


class CommandAnswers(msgspec.Struct, frozen=True):
    """How a command ended at each enabled node, by the node's id; of more than 100 nodes, those where it failed."""

    results: dict[str, CommandAnswer]
    progress: CommandProgress


class RestartAnswer(RestartAdvice, frozen=True):
    """Whether dapi may be restarted now without harm, else why not, for how many blocks, and from which block on.

    Numbers that are not known are null. ``api_container`` says the same of the network's own api container; it is
    missing where PoC v2 is not watched.
    """

    api_container: RestartAdvice | msgspec.UnsetType = msgspec.UNSET


class EpochsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The latest stages, the newest first, each with what became of each node's work.

    ``poc_v2`` are those of PoC v2, by stage and model: what is stored, committed and voted on; it is missing where that
    is not watched.
    """

    epochs: list[dict[str, Any]]
    poc_v2: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class StatusAnswer(msgspec.Struct, frozen=True):
    """The states of all parts, as JSON data; ``problems`` are what is wrong, the gravest first."""

    problems: list[Problem]
    version: str
    uptime_seconds: float
    database: dict[str, Any]
    batches: dict[str, int] | None
    outbox: dict[str, Any]
    callbacks: dict[str, Any]
    admin: dict[str, Any]
    broker: dict[str, Any]
    nodes: list[WorkerStatus]
    chain: dict[str, Any]
    relay: dict[str, Any] | None = None
    poc_v2_watch: dict[str, Any] | None = None


class BatchAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch as it is listed. Of one that the disk has damaged (``state``: ``damaged``) some fields may be missing."""

    seq: int
    state: str
    batch_id: Any = None
    node_id: Any = None
    kind: Any = None
    via: Any = None
    seen: Any = None
    height: Any = None
    nonces: Any = None
    received_at: str | None = None
    last_seen_at: str | None = None
    finished_at: str | None = None
    tx_hash: Any = None
    included_height: Any = None
    reason: Any = None


class WholeBatchAnswer(BatchAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """A batch with its message in base64, null where dapi does not keep it, and the name of the message's type."""

    type_url: str | None
    message: str | None


class StoryAnswer(BatchAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """A batch with its whole story: its deliveries by way, and the transactions that it was in, the latest last."""

    ways: dict[str, int] | None
    attempts: int
    parts: dict[str, int]
    transactions: list[dict[str, Any]]


class BatchesAnswer(msgspec.Struct, frozen=True):
    """A page of batches, the newest first; ``next`` is the cursor of the page after it, null on the last one."""

    batches: list[BatchAnswer]
    next: int | None


class WholeBatchesAnswer(msgspec.Struct, frozen=True):
    """A page of batches with their messages; ``next`` is the cursor of the page after it, null on the last one."""

    batches: list[WholeBatchAnswer]
    next: int | None


class RehearsalAnswer(msgspec.Struct, frozen=True):
    """How far a rehearsal of PoC on a node is: see RehearsalStatus."""

    node_id: str
    state: RehearsalState
    steps: list[RehearsalStep]
    nonces_per_second: float | None
    began_at: str
    ended_at: str | None


class BackupAnswer(msgspec.Struct, frozen=True):
    """How far the copy is that was begun last: ``none``, ``running``, ``done`` or ``failed``; ``problem`` says why."""

    state: str
    path: str | None
    pages: int
    pages_done: int
    bytes: int
    began_at: str | None
    ended_at: str | None
    problem: str | None
