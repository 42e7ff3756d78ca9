"""Every route of both ports, described: what it takes, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dapi.broker.nodes import NodeConfig
from dapi.messages import Kind, ProofBatch, State, ValidatedBatch
from dapi.server.answer_types import (
    BackupAnswer,
    BatchesAnswer,
    BatchMessage,
    CommandAnswers,
    EpochsAnswer,
    ErrorAnswer,
    NodeAnswer,
    NodeBody,
    NodeMessage,
    NodesAnswer,
    NodeState,
    RehearsalAnswer,
    RestartAnswer,
    RetriedAnswer,
    StatusAnswer,
    StoryAnswer,
    WholeBatchesAnswer,
)
from dapi.server.backup_routes import BackupParameters
from dapi.server.batch_list import MAX_CURSOR, MAX_LIMIT
from dapi.server.callback_door import BASES
from dapi.server.epochs import MAX_STAGES
from dapi.server.health import Health, Readiness
from dapi.server.log_routes import LogParameters, LogState
from dapi.server.openapi import Operation, Operations
from dapi.server.poc_routes import PocParameters

_ADMIN = "/admin/v1"
_HTML = "text/html"

Cursor = Annotated[int, Meta(ge=0, le=MAX_CURSOR)]


class BatchArguments(msgspec.Struct):
    """The arguments of lists of batches: which, how many, and the ``next`` of the page before."""

    node_id: str | None = None
    kind: Kind | None = None
    state: State | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None = None
    cursor: Cursor | None = None


class RetryArguments(msgspec.Struct):
    """Which of the failed batches are sent again, and the ``next`` of the call before."""

    node_id: str | None = None
    kind: Kind | None = None
    state: Literal["failed"] | None = None
    cursor: Cursor | None = None


class EpochArguments(msgspec.Struct):
    """How many stages."""

    limit: Annotated[int, Meta(ge=1, le=MAX_STAGES)] | None = None


class ForceArguments(msgspec.Struct):
    """Whether nodes get a command that the chain would undo."""

    force: Literal["true", "false"] | None = None


_HEALTH: Operations = {
    ("GET", "/healthz"): Operation("Whether dapi lives: that there is an answer says all.", {200: Health}),
    ("GET", "/readyz"): Operation(
        "Whether dapi can take and keep a batch now.", {200: Readiness, 503: (Readiness, ErrorAnswer)}
    ),
}

_NODES: Operations = {
    ("GET", "/nodes"): Operation("The nodes, and what their workers do.", {200: list[NodeState]}),
    ("POST", "/nodes"): Operation("Add a node, or change the one of this id.", {200: NodeAnswer}, NodeConfig),
    ("POST", "/nodes/batch"): Operation(
        "Add or change many nodes: 201 all were accepted, 206 some, 400 none.",
        {201: NodesAnswer, 206: NodesAnswer, 400: (NodesAnswer, ErrorAnswer)},
        list[NodeConfig],
    ),
    ("PUT", "/nodes/<node_id>"): Operation(
        "Add or change the node of this id; the body may leave the id out.", {200: NodeAnswer}, NodeBody
    ),
    ("DELETE", "/nodes/<node_id>"): Operation("Remove a node.", {200: bool}),
    ("POST", "/nodes/<node_id>/enable"): Operation("Let a node take part.", {200: NodeMessage}),
    ("POST", "/nodes/<node_id>/disable"): Operation("Stop a node, and leave it alone.", {200: NodeMessage}),
    ("POST", "/nodes/<node_id>/connect"): Operation("Try a node's WebSocket at once.", {200: NodeMessage}),
    ("POST", "/nodes/<node_id>/test"): Operation("Rehearse PoC on a node, off the chain.", {202: RehearsalAnswer}),
    ("GET", "/nodes/<node_id>/test"): Operation("How far the node's last rehearsal is.", {200: RehearsalAnswer}),
    ("POST", "/nodes/<node_id>/rotate"): Operation("Give a node a new callback token.", {200: NodeMessage}),
}

_POC: Operations = {
    ("GET", "/poc"): Operation(
        "How far the last command by hand is: 202 while it goes on.", {200: CommandAnswers, 202: CommandAnswers}
    ),
    **{
        ("POST", f"/poc/{name}"): Operation(
            f"{text} 202 while that goes on: after 20 s, and at once where the nodes are more than 100.",
            {200: CommandAnswers, 202: CommandAnswers},
            body,
            ForceArguments,
        )
        for name, text, body in (
            ("start", "Have all enabled nodes generate.", PocParameters),
            ("validate", "Have all enabled nodes validate.", PocParameters),
            ("inference", "Have all enabled nodes serve inference.", None),
            ("stop", "Stop all enabled nodes.", None),
        )
    },
}

_BATCHES: Operations = {
    ("GET", "/batches"): Operation("Batches, the newest first.", {200: BatchesAnswer}, query=BatchArguments),
    ("GET", "/batches/export"): Operation(
        "Batches with their messages, 100 at most.", {200: WholeBatchesAnswer}, query=BatchArguments
    ),
    ("GET", "/batches/<path:batch_id>"): Operation(
        "The whole story of a batch, by its id or 8 characters of its beginning.", {200: StoryAnswer}
    ),
    ("POST", "/batches/retry"): Operation(
        "Send failed batches again, as many as one commit takes.", {200: RetriedAnswer}, query=RetryArguments
    ),
    ("POST", "/batches/<path:batch_id>/retry"): Operation("Send a failed batch again.", {200: BatchMessage}),
}

_SERVICE: Operations = {
    ("GET", "/status"): Operation("Everything at a glance.", {200: StatusAnswer}),
    ("GET", "/epochs"): Operation(
        "The latest stages: generated … confirmed.", {200: EpochsAnswer}, query=EpochArguments
    ),
    ("GET", "/restart"): Operation("Whether dapi may be restarted now.", {200: RestartAnswer}),
    ("GET", "/backup"): Operation("How far the last copy of the database is.", {200: BackupAnswer}),
    ("POST", "/backup"): Operation("Begin a copy of the database.", {202: BackupAnswer}, BackupParameters),
    ("GET", "/log"): Operation("The levels of the log.", {200: LogState}),
    ("PUT", "/log"): Operation("Change the levels of the log until the next start.", {200: LogState}, LogParameters),
}

ADMIN: Operations = {
    **{
        (method, _ADMIN + path): operation
        for group in (_NODES, _POC, _BATCHES, _SERVICE)
        for (method, path), operation in group.items()
    },
    **_HEALTH,
    ("GET", "/metrics"): Operation("Metrics in Prometheus' text format.", {200: "text/plain"}),
    ("GET", "/"): Operation("The status page.", {200: _HTML}),
    ("GET", "/page/<name>"): Operation("A file of the status page.", {200: _HTML}),
    ("GET", "/events"): Operation("What the status page shows, as a stream of events.", {200: "text/event-stream"}),
}

_TEXTS = {
    "generated": ("Deliver a batch that the node generated.", ProofBatch),
    "validated": ("Deliver a verdict on another participant's batch.", ValidatedBatch),
}

CALLBACKS: Operations = {
    **{
        ("POST", f"{base}{token}/{kind}"): Operation(f"{text} 200 means that it is on disk.", {200: None}, body)
        for base in BASES
        for token in ("", "/<token>")
        for kind, (text, body) in _TEXTS.items()
    },
    **_HEALTH,
}

# The prefix is a secret, and a model's id is escaped twice. What comes is kept as it is, and not looked at before that.
RELAYED: Operations = {
    ("POST", f"/k/<prefix>/v2/poc-batches/<model>/{kind}"): Operation(
        f"Deliver {what} of PoC v2, for the network's own api container. 200 means that it is on disk.",
        {200: None, 503: ErrorAnswer},
        dict,
    )
    for kind, what in (("generated", "artifacts"), ("validated", "the result of a validation"))
}
