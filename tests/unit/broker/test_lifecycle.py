"""The broker from its start to its stop: loading, the configuration file, what it tells, and what it leaves."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node, NodeStore
from dapi.errors import ConfigError, NotReadyError, StoreBrokenError, StoreBusyError
from dapi.phases.duty import Duty
from tests.nodes import node_config
from tests.unit.broker.broker_case import BrokerTestCase


class LoadingTests(BrokerTestCase):
    """Until the nodes are loaded nothing is said of them."""

    is_started = False

    def attempts(self) -> list[Deferred[Any]]:
        return [
            self.broker.add_node(node_config("z")),
            self.broker.remove_node("a"),
            self.broker.disable_node("a"),
            self.broker.command_all(Duty.GENERATE, 1000, "AB", "02aa"),
            self.broker.command_all(Duty.INFERENCE),
        ]

    def assert_not_loaded(self) -> None:
        self.assertRaises(NotReadyError, self.broker.worker_by_num, 1)
        self.assertRaises(NotReadyError, self.broker.nodes)
        for attempt in self.attempts():
            self.failureResultOf(attempt, NotReadyError)
        status = self.broker.status()
        self.assertEqual((False, []), (status.is_loaded, status.nodes))

    def test_before_the_start(self) -> None:
        self.assert_not_loaded()

    def test_tries_again_while_the_database_is_busy(self) -> None:
        self.successResultOf(NodeStore(self.database).save(node_config("a")))
        self.database.failure = StoreBusyError("locked")
        self.broker.startService()
        self.assert_not_loaded()
        self.assertIn("locked", str(self.broker.status().problem))
        self.clock.advance(2)
        self.assert_not_loaded()
        self.database.failure = None
        self.clock.advance(2)
        self.assertEqual({"a": 1}, self.numbers())
        self.assertIsNone(self.broker.status().problem)
        # Told once, however often it was tried.
        self.assertEqual(1, len(self.lines))

    def test_stopped_while_it_tries(self) -> None:
        self.database.failure = StoreBusyError("locked")
        self.broker.startService()
        self.successResultOf(self.broker.stopService())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_broken_database(self) -> None:
        self.database.failure = StoreBrokenError("fsync failed")
        self.broker.startService()
        self.assert_not_loaded()
        self.assertIn("fsync failed", str(self.broker.status().problem))
        self.assertEqual(1, len(self.flushLoggedErrors(StoreBrokenError)))

    def test_nodes_that_cannot_be_used_are_left_out(self) -> None:
        store = NodeStore(self.database)
        for name in ("a", "b", "c"):
            self.successResultOf(store.save(node_config(name)))
        self.database.write(lambda c: c.execute("UPDATE nodes SET config = '{}' WHERE id = 'b'"))
        make_worker = self.make_worker

        def fail_for_c(node: Node) -> NodeWorker:
            if node.id == "c":
                raise ConfigError("no such file")
            return make_worker(node)

        self.make_worker = fail_for_c  # type: ignore[method-assign]
        self.broker = self.make_broker()
        self.broker.startService()
        self.assertEqual({"a": 1}, self.numbers())
        for name in "bc":
            self.assertTrue(any(line.startswith(f"{name}: left out") for line in self.lines))
            self.assertIn(f"{name}: left out", str(self.broker.status().problem))
        self.make_worker = make_worker  # type: ignore[method-assign]
        self.command_all(Duty.GENERATE, 1000, "AB", "02aa")
        self.assertEqual(4, self.stubs["a"].bodies[-1]["node_count"])


class ConfigurationFileTests(BrokerTestCase):
    """What the file says is taken for nodes that the database does not know."""

    def test_missing_ones_are_registered(self) -> None:
        self.add("a")
        registered = self.successResultOf(self.broker.register_missing([node_config("a"), node_config("b")]))
        self.assertEqual(["b"], [node.id for node in registered])
        self.assertEqual({"a": 1, "b": 2}, self.numbers())
        self.assertEqual([], self.lines)

    def test_many_let_the_reactor_turn(self) -> None:
        names = [f"n{num}" for num in range(60)]
        registering = self.broker.register_missing([node_config(name, host=name) for name in names])
        self.assertNoResult(registering)
        self.assertEqual(20, len(self.made))
        self.clock.advance(0)
        self.assertEqual(names, [node.id for node in self.successResultOf(registering)])
        self.assertEqual(dict(zip(names, range(1, 61), strict=True)), self.numbers())

    def test_nobody_is_unknown_while_many_are_loaded(self) -> None:
        self.successResultOf(
            NodeStore(self.database).save_all([node_config(f"n{num}", host=f"n{num}") for num in range(60)])
        )
        self.restart()
        self.assertRaises(NotReadyError, self.broker.worker_by_num, 1)
        self.clock.advance(0)
        self.assertEqual(60, len(self.numbers()))

    def test_one_address_twice_in_the_file(self) -> None:
        registered = self.successResultOf(self.broker.register_missing([node_config(name, host="h") for name in "ab"]))
        self.assertEqual(["a"], [node.id for node in registered])
        [line] = self.lines
        self.assertTrue(line.startswith("b: not registered: node b: host, poc_port"))

    def test_differences_are_told(self) -> None:
        self.add("a")
        config = node_config("a", poc_port=9, max_concurrent=7)
        self.assertEqual([], self.successResultOf(self.broker.register_missing([config])))
        self.assertEqual(8080, self.worker("a").node.config.poc_port)
        [line] = self.lines
        self.assertIn("poc_port: 8080 in the database, 9 in the file", line)
        self.assertIn("max_concurrent: 500 in the database, 7 in the file", line)
        self.assertIn("POST the node to /admin/v1/nodes", line)
        self.assertNotIn("host", line)

    def test_differences_do_not_tell_secrets(self) -> None:
        self.add("a", websocket_url="ws://h/ws?token=hunter2")
        config = node_config("a", models={"m": {"args": ["--api-key", "hunter3"]}})
        self.successResultOf(self.broker.register_missing([config]))
        [line] = self.lines
        self.assertNotIn("hunter", line)
        self.assertIn("models; websocket_url", line)

    def test_removed_ones_stay_removed(self) -> None:
        self.add("a")
        self.successResultOf(self.broker.remove_node("a"))
        for _ in range(2):
            self.assertEqual([], self.successResultOf(self.broker.register_missing([node_config("a")])))
            self.assertEqual({}, self.numbers())
            self.restart()
        self.assertEqual(2, len(self.lines))
        self.assertIn("POST it to /admin/v1/nodes", self.lines[0])
        self.add("a")
        self.assertEqual({"a": 1}, self.numbers())

    def test_address_that_is_taken(self) -> None:
        self.add("a", host="h")
        configs = [node_config("b", host="h"), node_config("c")]
        registered = self.successResultOf(self.broker.register_missing(configs))
        self.assertEqual(["c"], [node.id for node in registered])
        [line] = self.lines
        self.assertTrue(line.startswith("b: not registered: node b: host, poc_port"))


class StopTests(BrokerTestCase):
    """Stopping leaves nothing and loses no result."""

    def test_stop_with_commands_under_way(self) -> None:
        self.add("a", "b")
        self.stubs["a"].held = {"state"}
        both = self.commanding(Duty.GENERATE, 1000, "AB", "02aa")
        self.successResultOf(self.broker.stopService())
        self.assertEqual({"a": False, "b": True}, {name: r.succeeded for name, r in self.successResultOf(both).items()})
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertFalse(any(worker.running for worker in self.made))

    def test_waits_for_workers_that_were_replaced(self) -> None:
        self.add("a", "b")
        old = self.websocket("a")
        removed = self.websocket("b")
        old.closing, removed.closing = Deferred(), Deferred()
        self.add("a", poc_port=9)
        self.successResultOf(self.broker.remove_node("b"))
        commanded = self.commanding(Duty.STOPPED)
        stopped = self.broker.stopService()
        self.assertNoResult(stopped)
        self.assertFalse(self.successResultOf(commanded)["a"].succeeded)
        old.closing.callback(None)
        self.assertNoResult(stopped)
        removed.closing.callback(None)
        self.successResultOf(stopped)
        self.assertFalse(any(worker.running for worker in self.made))

    def test_change_that_has_begun_is_finished_and_a_later_one_refused(self) -> None:
        self.database.gate = Deferred()
        first = self.broker.add_node(node_config("a"))
        second = self.broker.add_node(node_config("b"))
        stopped = self.broker.stopService()
        self.assertNoResult(stopped)
        self.database.gate.callback(None)
        self.successResultOf(first)
        self.failureResultOf(second, NotReadyError)
        self.successResultOf(stopped)
        self.failureResultOf(self.broker.command_all(Duty.GENERATE, 1000, "AB", "02aa"), NotReadyError)
        self.assertFalse(any(worker.running for worker in self.made))

    def test_nodes_are_known_to_the_last(self) -> None:
        self.add("a")
        self.successResultOf(self.broker.stopService())
        self.assertEqual("a", self.broker.worker_by_num(1).node.id)

    def test_started_again(self) -> None:
        self.add("a")
        self.successResultOf(self.broker.stopService())
        self.broker.startService()
        self.assertTrue(self.command_all(Duty.GENERATE, 1000, "AB", "02aa")["a"].succeeded)
        self.assertEqual(1, len(self.made))

    def test_twice(self) -> None:
        self.add("a")
        websocket = self.websocket("a")
        websocket.closing = Deferred()
        both = [self.broker.stopService(), self.broker.stopService()]
        for stopped in both:
            self.assertNoResult(stopped)
        websocket.closing.callback(None)
        for stopped in both:
            self.successResultOf(stopped)


class StatusTests(BrokerTestCase):
    """What the broker tells."""

    def test_status(self) -> None:
        self.add("a", "b")
        self.successResultOf(self.broker.remove_node("b"))
        status = self.broker.status()
        self.assertEqual((True, None, 2), (status.is_loaded, status.problem, status.highest_num))
        self.assertEqual(["a"], [worker.node_id for worker in status.nodes])
