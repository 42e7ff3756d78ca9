# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The admin routes for proof of compute by hand: a command to all enabled nodes, and how far the last one is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeAlias

import msgspec
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from dapi.broker.broker import Broker
from dapi.broker.command_round import CommandRound
from dapi.http.answers import HttpError, json_answer, shielded
from dapi.phases.duty import Duty
from dapi.server.answer_types import CommandAnswer, CommandAnswers, CommandProgress
from dapi.server.batch_list import with_times
from dapi.server.epochs import EpochRoutes
from dapi.server.json_body import decode_body

MAX_NODES_SHOWN = 100
"""Of more nodes than this, an answer has those alone whose command failed, and does not wait for any."""

Handler: TypeAlias = Callable[..., Any]


class PocParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stage that nodes generate or validate for: the block it starts at, and the participant's key in hex."""

    block_height: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    block_hash: Annotated[str, msgspec.Meta(min_length=1)]
    public_key: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2})+\Z")]


class PocRoutes:
    """``POST poc/start``, ``validate``, ``inference``, ``stop``, and ``GET poc``.

    ``epochs`` refuses a command while the chain drives the nodes.
    """

    wait_seconds = 20.0
    """How long a POST waits for the nodes; their commands go on after it."""

    def __init__(self, reactor: IReactorTime, broker: Broker, epochs: EpochRoutes) -> None:
        self._reactor = reactor
        self._broker = broker
        self._epochs = epochs

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return the method, path and handler of each route."""
        return (
            ("GET", "/poc", self._get_progress),
            ("POST", "/poc/start", self._command_all(Duty.GENERATE)),
            ("POST", "/poc/validate", self._command_all(Duty.VALIDATE)),
            ("POST", "/poc/inference", self._command_all(Duty.INFERENCE)),
            ("POST", "/poc/stop", self._command_all(Duty.STOPPED)),
        )

    def _command_all(self, duty: Duty) -> Handler:
        async def handle(request: Request) -> bytes:
            self._epochs.refuse_unless_forced(request)
            needs_stage = duty in (Duty.GENERATE, Duty.VALIDATE)
            stage = msgspec.structs.astuple(decode_body(request, PocParameters)) if needs_stage else ()
            begun = await shielded(self._broker.command_all(duty, *stage), "a command by the admin API")
            if begun.progress().nodes <= MAX_NODES_SHOWN:
                with suppress(DeferredTimeoutError):
                    await begun.ended().addTimeout(self.wait_seconds, self._reactor)
            return _answer(request, begun)

        return handle

    def _get_progress(self, request: Request) -> bytes:
        last = self._broker.rounds.last
        if last is None:
            raise HttpError(404, "no command was given by hand since dapi started")
        return _answer(request, last)


def _answer(request: Request, commands: CommandRound) -> bytes:
    progress = commands.progress()
    shows_all = progress.nodes <= MAX_NODES_SHOWN
    results: dict[str, CommandAnswer] = {}
    for node_id, result in commands.results().items():
        if len(results) < MAX_NODES_SHOWN and (shows_all or (result is not None and not result.succeeded)):
            results[node_id] = CommandAnswer.of(result)
    shown = CommandProgress(**with_times(msgspec.to_builtins(progress)))
    return json_answer(request, CommandAnswers(results, shown), 202 if progress.pending else 200)
