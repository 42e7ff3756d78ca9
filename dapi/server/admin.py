# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The admin API: nodes, proof of compute by hand, status, and the batches that are kept; JSON in and out.

Who may call it says the AdminDoor (admin_door.py). What a browser could be made to send from elsewhere is refused:
there by ``Origin`` and ``Host``, and here a body that is not declared as JSON. Nothing changes by GET.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Request

from dapi.broker.broker import Broker
from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.errors import DapiError, NotReadyError, StoreError
from dapi.http.answers import HttpError, json_answer, new_app, shielded
from dapi.http.routes import Route, add_routes, open_paths
from dapi.orchestration.phase_status import PhaseStatus
from dapi.orchestration.restarts import Restarts
from dapi.outbox.outbox import Outbox
from dapi.server.admin_door import AdminDoor
from dapi.server.answer_types import (
    NodeAnswer,
    NodeMessage,
    NodeRefusal,
    NodesAnswer,
    NodeState,
)
from dapi.server.batch_routes import BatchRoutes
from dapi.server.epochs import EpochRoutes
from dapi.server.json_body import decode_body
from dapi.server.poc_routes import PocRoutes

T = TypeVar("T")

Handler: TypeAlias = Callable[..., Any]


class AdminApi:
    """The routes below ``/admin/v1``.

    ``status`` returns what ``GET status`` shows, or a Deferred of it. ``phases`` tells of the chain that the nodes
    follow, and is None where they follow none; ``restarts`` tells whether parts may be restarted, by ``phases`` alone
    where it is None. ``poc_v2`` returns the latest stages of PoC v2, and is None where it is not watched. ``token`` and
    ``hosts`` are for the AdminDoor. ``others`` are routes of other parts, from the root of the port.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        broker: Broker,
        outbox: Outbox,
        status: Callable[[], Any],
        *,
        phases: PhaseStatus | None = None,
        restarts: Restarts | None = None,
        poc_v2: Callable[[int], list[dict[str, Any]]] | None = None,
        token: str | None = None,
        hosts: Collection[str] = (),
        others: Iterable[Route] = (),
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._batches = BatchRoutes(outbox)
        self._status = status
        self._epochs = EpochRoutes(phases, restarts or Restarts(phases, None, False), poc_v2)
        self.poc = PocRoutes(reactor, broker, self._epochs)
        self._token = token
        self._hosts = hosts
        self._others = tuple(others)

    def resource(self) -> IResource:
        """Return the resource with all routes."""
        app = new_app()
        with app.subroute("/admin/v1") as admin:
            for method, path, handler in self._routes():
                admin.route(path, methods=[method], endpoint=f"{method} {path}")(handler)
        add_routes(app, self._others)
        paths = open_paths(self._others)
        return AdminDoor(self._reactor, app.resource(), self._token, hosts=self._hosts, open_paths=paths)

    def _routes(self) -> tuple[tuple[str, str, Handler], ...]:
        return (
            ("GET", "/nodes", self._get_nodes),
            ("POST", "/nodes", self._post_node),
            ("POST", "/nodes/batch", self._post_nodes),
            ("PUT", "/nodes/<node_id>", self._put_node),
            ("DELETE", "/nodes/<node_id>", self._delete_node),
            ("POST", "/nodes/<node_id>/enable", self._enable_node),
            ("POST", "/nodes/<node_id>/disable", self._disable_node),
            ("POST", "/nodes/<node_id>/connect", self._connect_node),
            ("POST", "/nodes/<node_id>/rotate", self._rotate_token),
            *self.poc.routes(),
            ("GET", "/epochs", self._epochs.get_epochs),
            ("GET", "/restart", self._epochs.get_restart),
            ("GET", "/status", self._get_status),
            ("GET", "/batches", self._batches.get_batches),
            ("GET", "/batches/export", self._batches.get_export),
            # The id of a batch of another chain has a slash.
            ("GET", "/batches/<path:batch_id>", self._batches.get_batch),
            ("POST", "/batches/retry", self._batches.retry_batches),
            ("POST", "/batches/<path:batch_id>/retry", self._batches.retry_batch),
        )

    def _get_nodes(self, request: Request) -> bytes:
        nodes = [
            NodeState(NodeAnswer.of(node), self._broker.worker_by_num(node.num).status())
            for node in self._broker.nodes()
        ]
        return json_answer(request, nodes)

    async def _post_node(self, request: Request) -> bytes:
        return await self._save_node(request, decode_node_config(_json_of(request)))

    async def _put_node(self, request: Request, node_id: str) -> bytes:
        value = _json_of(request)
        if isinstance(value, dict) and value.setdefault("id", node_id) != node_id:
            raise HttpError(400, f"id: is {value['id']!r} in the body and {node_id!r} in the path")
        return await self._save_node(request, decode_node_config(value))

    async def _save_node(self, request: Request, config: NodeConfig) -> bytes:
        return json_answer(request, NodeAnswer.of(await self._shielded(self._broker.add_node(config))))

    async def _post_nodes(self, request: Request) -> bytes:
        values = _json_of(request)
        if not isinstance(values, list):
            raise HttpError(400, "expected an array of nodes")
        added: list[NodeAnswer] = []
        errors: list[NodeRefusal] = []
        for index, value in enumerate(values):
            try:
                node = await self._shielded(self._broker.add_node(decode_node_config(value)))
            except DapiError as error:
                if isinstance(error, StoreError | NotReadyError) and not added:
                    raise
                node_id = value.get("id") if isinstance(value, dict) else None
                errors.append(NodeRefusal(index, node_id, str(error)))
            else:
                added.append(NodeAnswer.of(node))
        code = 206 if added else 400
        return json_answer(request, NodesAnswer(added, errors), code if errors else 201)

    async def _delete_node(self, request: Request, node_id: str) -> bytes:
        await self._shielded(self._broker.remove_node(node_id))
        return json_answer(request, True)

    async def _enable_node(self, request: Request, node_id: str) -> bytes:
        await self._shielded(self._broker.enable_node(node_id))
        return json_answer(request, NodeMessage("node is enabled", node_id))

    async def _disable_node(self, request: Request, node_id: str) -> bytes:
        await self._shielded(self._broker.disable_node(node_id))
        return json_answer(request, NodeMessage("node is disabled", node_id))

    def _connect_node(self, request: Request, node_id: str) -> bytes:
        if not self._broker.worker(node_id).websocket_client.connect_now():
            raise HttpError(409, "its WebSocket is not waiting for a next try: GET nodes shows what it does")
        return json_answer(request, NodeMessage("its WebSocket is tried now", node_id))

    async def _rotate_token(self, request: Request, node_id: str) -> bytes:
        await self._shielded(self._broker.rotate_token(node_id))
        message = "node has a new callback token, and is told it when the next stage begins"
        return json_answer(request, NodeMessage(message, node_id))

    async def _get_status(self, request: Request) -> bytes:
        return json_answer(request, await maybeDeferred(self._status))

    def _shielded(self, work: Deferred[T]) -> Deferred[T]:
        """Let a change go on when its client goes away."""
        return shielded(work, "a change by the admin API")


def _json_of(request: Request) -> Any:
    return decode_body(request, Any)
