"""A door of the callbacks, with the nodes that a test says."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from dapi.broker.callback_tokens import CallbackTokens
from dapi.broker.nodes import Node
from dapi.errors import NotReadyError, UnknownNodeError
from dapi.server.callback_door import CallbackDoor


class Nodes:
    """The nodes that are registered, by number; ``None``: they are not loaded."""

    def __init__(self, *nodes: Node) -> None:
        self.by_num: dict[int, Node] | None = {node.num: node for node in nodes}

    def all(self) -> list[Node]:
        if self.by_num is None:
            raise NotReadyError("the nodes are not loaded yet")
        return list(self.by_num.values())

    def get(self, num: int) -> Node:
        for node in self.all():
            if node.num == num:
                return node
        raise UnknownNodeError(f"no node has the number {num}")


def started_tokens(folder: str | Path) -> CallbackTokens:
    """Tokens whose secret is in this folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tokens = CallbackTokens(str(Path(folder) / "outbox.db"))
    tokens.startService()
    return tokens


def make_door(
    clock: IReactorTime, nodes: Nodes, tokens: CallbackTokens | None = None, *, takes_plain: bool = True
) -> CallbackDoor:
    """A door; one without tokens takes what comes without one."""
    return CallbackDoor(clock, tokens or CallbackTokens("unused"), nodes.all, nodes.get, takes_plain=takes_plain)
