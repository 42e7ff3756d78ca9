"""A broker to test with: a database of its own, and stubs for nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.broker import Broker
from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import CommandResult
from dapi.broker.nodes import Node, NodeStore
from dapi.mlnode.client import TEST_NETWORK_PARAMS
from dapi.phases.duty import Duty
from tests.logs import log_of
from tests.nodes import FakeWebSocket, StubNode, SynchronousDatabase, make_worker, node_config, websocket_of

CALLBACK_URL = "http://10.0.0.1:9100/v1/poc-batches"


def callback_url(node_num: int, token_num: int) -> str:
    """The base that a node is told: its token says which one it is, 0 for none."""
    return f"{CALLBACK_URL}/{node_num}-{token_num}" if token_num else CALLBACK_URL


class BrokerTestCase(SynchronousTestCase):
    """Has a broker with a database of its own, whose nodes are stubs."""

    is_started = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SynchronousDatabase(self.mktemp())
        self.addCleanup(self.database.close)
        self.stubs: dict[str, StubNode] = {}
        self.made: list[NodeWorker] = []
        self.log = log_of(self)
        self.broker = self.make_broker()
        if self.is_started:
            self.broker.startService()

    @property
    def lines(self) -> list[str]:
        """What the broker logged so far, warnings and worse."""
        events = [event for event in self.log.events if event["log_level"] >= LogLevel.warn]
        return [formatEvent(event) for event in events if event["log_namespace"].startswith("dapi.broker")]

    def make_broker(self) -> Broker:
        params, store = TEST_NETWORK_PARAMS, NodeStore(self.database)
        return Broker(self.clock, store, self.make_worker, params=params, callback_url=callback_url)

    def make_worker(self, node: Node) -> NodeWorker:
        stub = self.stubs.setdefault(node.id, StubNode())
        worker = make_worker(self.clock, node, stub)
        self.made.append(worker)
        return worker

    def add(self, *names: str, **changes: Any) -> None:
        for name in names:
            self.successResultOf(self.broker.add_node(node_config(name, **changes)))

    def command_all(self, duty: Duty, *stage: Any) -> dict[str, CommandResult]:
        """Give all nodes a command, which ends at once."""
        return self.successResultOf(self.commanding(duty, *stage))

    def commanding(self, duty: Duty, *stage: Any) -> Deferred[dict[str, CommandResult]]:
        """Give all nodes a command; fires with its results."""
        return self.successResultOf(self.broker.command_all(duty, *stage)).ended()

    def worker(self, node_id: str) -> NodeWorker:
        [num] = [node.num for node in self.broker.nodes() if node.id == node_id]
        return self.broker.worker_by_num(num)

    def websocket(self, node_id: str) -> FakeWebSocket:
        return websocket_of(self.worker(node_id))

    def restart(self) -> None:
        self.successResultOf(self.broker.stopService())
        self.broker = self.make_broker()
        self.broker.startService()

    def numbers(self) -> dict[str, int]:
        return {node.id: node.num for node in self.broker.nodes()}
