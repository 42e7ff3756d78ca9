# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The admin API: nodes, proof of compute by hand, status, and the batches that are kept; JSON in and out.

It has no password, so it belongs on a loopback address. What a browser could be made to send from elsewhere is refused:
a body that is not declared as JSON, an ``Origin`` that is not this server, and, on loopback, a ``Host`` that is a name
other than localhost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Request

from dapi.broker.node_worker import NodeWorker, WorkerStatus
from dapi.broker.node_worker_commands import CommandResult
from dapi.broker.nodes import Node, NodeConfig, decode_node_config
from dapi.errors import DapiError, NotReadyError, StoreError
from dapi.http.answers import HttpError, body_of, json_answer, new_app, shielded
from dapi.http.browser_guard import BrowserGuard
from dapi.phases.duty import Duty
from dapi.server.batch_list import BatchListing, BatchQuery, page_of
from dapi.server.epochs import Driver, EpochRoutes

if TYPE_CHECKING:
    from klein import Klein

T = TypeVar("T")

Results: TypeAlias = dict[str, CommandResult]


class Broker(Protocol):
    """What the admin API needs of the broker; dapi.broker.broker.Broker says what each Deferred fails with."""

    def nodes(self) -> Sequence[Node]:
        """Return the registered nodes, by number."""

    def worker_by_num(self, num: int) -> NodeWorker:
        """Return the worker of the node with this number, or raise UnknownNodeError."""

    def add_node(self, config: NodeConfig) -> Deferred[Node]:
        """Register a node, or change the one that has this id."""

    def remove_node(self, node_id: str) -> Deferred[Any]:
        """Remove a node."""

    def enable_node(self, node_id: str) -> Deferred[Any]:
        """Let a node work again."""

    def disable_node(self, node_id: str) -> Deferred[Any]:
        """Have a node do nothing."""

    def command_all(
        self, duty: Duty, block_height: int = 0, block_hash: str = "", public_key: str = ""
    ) -> Deferred[Results]:
        """Give all enabled nodes the command for a duty."""


class PocParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What proof of compute is about: the block it starts at, and the participant's key in hex."""

    block_height: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    block_hash: Annotated[str, msgspec.Meta(min_length=1)]
    public_key: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2})+\Z")]


class AdminApi:
    """The routes below ``/admin/v1``.

    ``status`` returns what ``GET status`` shows, or a Deferred of it. ``driver`` has the nodes follow the chain,
    None where nothing does. ``local_only`` says that the server is bound to a loopback address. ``wait_seconds`` is how
    long a ``poc`` route waits for the nodes; the commands go on after it.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        broker: Broker,
        batches: BatchListing,
        status: Callable[[], Any],
        *,
        driver: Driver | None = None,
        local_only: bool = True,
        wait_seconds: float = 20.0,
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._batches = batches
        self._status = status
        self._epochs = EpochRoutes(driver)
        self._local_only = local_only
        self._wait_seconds = wait_seconds

    def resource(self) -> IResource:
        """Return the resource with all routes."""
        app = new_app()
        with app.subroute("/admin/v1") as admin:
            self._add_node_routes(admin)
            self._add_poc_routes(admin)
            self._epochs.add_to(admin)
            admin.route("/status", methods=["GET"], endpoint="status")(self._get_status)
            admin.route("/batches", methods=["GET"], endpoint="batches")(self._get_batches)
            admin.route("/batches/<batch_id>/retry", methods=["POST"], endpoint="retry")(self._retry_batch)
        return BrowserGuard(app.resource(), self._local_only)

    def _add_node_routes(self, admin: Klein) -> None:
        for path, method, handler in (
            ("/nodes", "GET", self._get_nodes),
            ("/nodes", "POST", self._post_node),
            ("/nodes/batch", "POST", self._post_nodes),
            ("/nodes/<node_id>", "PUT", self._put_node),
            ("/nodes/<node_id>", "DELETE", self._delete_node),
            ("/nodes/<node_id>/enable", "POST", self._enable_node),
            ("/nodes/<node_id>/disable", "POST", self._disable_node),
        ):
            admin.route(path, methods=[method], endpoint=f"{method} {path}")(handler)

    def _add_poc_routes(self, admin: Klein) -> None:
        for name, duty in (("start", Duty.GENERATE), ("validate", Duty.VALIDATE)):
            admin.route(f"/poc/{name}", methods=["POST"], endpoint=f"poc {name}")(self._about_a_block(duty))
        for name, duty in (("stop", Duty.STOPPED), ("inference", Duty.INFERENCE)):
            admin.route(f"/poc/{name}", methods=["POST"], endpoint=f"poc {name}")(self._without_a_block(duty))

    def _get_nodes(self, request: Request) -> bytes:
        nodes = [
            {"node": _config_of(node), "state": self._broker.worker_by_num(node.num).status()}
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
        return json_answer(request, _config_of(await self._done(self._broker.add_node(config))))

    async def _post_nodes(self, request: Request) -> bytes:
        values = _json_of(request)
        if not isinstance(values, list):
            raise HttpError(400, "expected an array of nodes")
        added: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for index, value in enumerate(values):
            try:
                node = await self._done(self._broker.add_node(decode_node_config(value)))
            except DapiError as error:
                if isinstance(error, StoreError | NotReadyError) and not added:
                    raise
                node_id = value.get("id") if isinstance(value, dict) else None
                errors.append({"index": index, "id": node_id, "error": str(error)})
            else:
                added.append(_config_of(node))
        code = 206 if added else 400
        return json_answer(request, {"nodes": added, "errors": errors}, code if errors else 201)

    async def _delete_node(self, request: Request, node_id: str) -> bytes:
        await self._done(self._broker.remove_node(node_id))
        return json_answer(request, True)

    async def _enable_node(self, request: Request, node_id: str) -> bytes:
        await self._done(self._broker.enable_node(node_id))
        return json_answer(request, {"message": "node is enabled", "node_id": node_id})

    async def _disable_node(self, request: Request, node_id: str) -> bytes:
        await self._done(self._broker.disable_node(node_id))
        return json_answer(request, {"message": "node is disabled", "node_id": node_id})

    def _about_a_block(self, duty: Duty) -> Callable[[Request], Any]:
        async def handle(request: Request) -> bytes:
            self._epochs.refuse_unless_forced(request)
            given = _decode(request, PocParameters)
            commanded = self._broker.command_all(duty, given.block_height, given.block_hash, given.public_key)
            return await self._answer_results(request, commanded)

        return handle

    def _without_a_block(self, duty: Duty) -> Callable[[Request], Any]:
        async def handle(request: Request) -> bytes:
            self._epochs.refuse_unless_forced(request)
            return await self._answer_results(request, self._broker.command_all(duty))

        return handle

    async def _answer_results(self, request: Request, commanded: Deferred[Results]) -> bytes:
        try:
            results: Mapping[str, Any] = await self._done(commanded).addTimeout(self._wait_seconds, self._reactor)
        except DeferredTimeoutError:
            results = {
                node.id: _result_so_far(self._broker.worker_by_num(node.num).status())
                for node in self._broker.nodes()
                if node.enabled
            }
        return json_answer(request, {"results": results})

    async def _get_status(self, request: Request) -> bytes:
        return json_answer(request, await maybeDeferred(self._status))

    async def _get_batches(self, request: Request) -> bytes:
        query = BatchQuery.from_args(request.args or {})
        page = await self._batches.batches(
            node_id=query.node_id, kind=query.kind, state=query.state, limit=query.limit, before=query.cursor
        )
        return json_answer(request, page_of(page))

    async def _retry_batch(self, request: Request, batch_id: str) -> bytes:
        await self._done(self._batches.retry(batch_id))
        return json_answer(request, {"message": "the batch is sent again", "batch_id": batch_id})

    def _done(self, work: Deferred[T]) -> Deferred[T]:
        """Wait for a change that goes on when the client goes away."""
        return shielded(work, "a change by the admin API")


def _config_of(node: Node) -> dict[str, Any]:
    config = msgspec.to_builtins(node.config)
    # What follows the question mark may be a token.
    path, mark, _secret = (config["websocket_url"] or "").partition("?")
    if mark:
        config["websocket_url"] = f"{path}?(hidden)"
    return {**config, "node_num": node.num}


def _result_so_far(status: WorkerStatus) -> Any:
    if status.command is None and not status.waiting and status.last is not None:
        return status.last.result
    return {"succeeded": None, "status": "pending", "error": None}


def _json_of(request: Request) -> Any:
    return _decode(request, Any)


def _decode(request: Request, wanted: Any) -> Any:
    """Decode a JSON body; raise HttpError, which names the field, when it is not what is wanted."""
    media_type = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        # A page of another site can have a browser send any other type without asking first.
        raise HttpError(415, "send JSON, with the header Content-Type: application/json")
    try:
        return msgspec.json.decode(body_of(request), type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, str(error)) from error
