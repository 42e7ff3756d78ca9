"""The broker: nodes that come, change and go while they run, and commands for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from dapi.broker.node_worker_commands import CommandResult
from dapi.broker.nodes import Node
from dapi.errors import ConfigError, NotReadyError, StoreBusyError, UnknownNodeError
from dapi.phases.duty import Duty
from tests.batches import generated_batch
from tests.nodes import node_config
from tests.unit.broker.broker_case import CALLBACK_URL, BrokerTestCase


class NoCommandTests(BrokerTestCase):
    """A network with PoC v2: each command would stop what the network's own software has the nodes do."""

    def test_no_command_goes_to_any_node(self) -> None:
        self.add("a")
        self.broker.refuse_commands_while(lambda: "the network has moved to PoC v2")
        for duty in Duty:
            failure = self.failureResultOf(self.broker.command_all(duty, 1000, "AB", "02aa"), NotReadyError)
            self.assertIn("PoC v2", str(failure.value))
        self.successResultOf(self.broker.disable_node("a"))
        self.assertIs(self.worker("a").status().last, None)
        self.broker.refuse_commands_while(lambda: None)
        self.successResultOf(self.broker.enable_node("a"))
        self.successResultOf(self.broker.disable_node("a"))
        self.assertIsNot(self.worker("a").status().last, None)


class RegistrationTests(BrokerTestCase):
    """Adding, changing and removing."""

    def test_numbers_from_1(self) -> None:
        self.add("c", "a", "b")
        self.assertEqual({"c": 1, "a": 2, "b": 3}, self.numbers())
        self.assertEqual(["c", "a", "b"], [node.id for node in self.broker.nodes()])
        self.assertEqual("a", self.broker.worker_by_num(2).node.id)

    def test_numbers_are_kept_over_a_restart_and_a_removal(self) -> None:
        self.add("a", "b", "c")
        self.successResultOf(self.broker.remove_node("a"))
        self.successResultOf(self.broker.remove_node("c"))
        self.restart()
        self.assertEqual({"b": 2}, self.numbers())
        self.add("d", "c")
        self.assertEqual({"b": 2, "c": 3, "d": 4}, self.numbers())

    def test_add_fires_with_the_node(self) -> None:
        node = self.successResultOf(self.broker.add_node(node_config("a")))
        self.assertEqual(Node(node_config("a"), 1, True), node)
        self.assertTrue(self.worker("a").running)

    def test_same_address(self) -> None:
        self.add("a", host="h", poc_port=1)
        self.failureResultOf(self.broker.add_node(node_config("b", host="http://H", poc_port=1)), ConfigError)
        self.add("b", host="h", poc_port=2)
        self.failureResultOf(self.broker.add_node(node_config("b", host="h", poc_port=1)), ConfigError)
        self.assertEqual(2, self.worker("b").node.config.poc_port)
        self.restart()
        self.assertEqual({"a": 1, "b": 2}, self.numbers())

    def test_address_of_a_removed_node_is_free(self) -> None:
        self.add("a", host="h")
        self.successResultOf(self.broker.remove_node("a"))
        self.add("b", host="h")
        self.assertEqual({"b": 2}, self.numbers())

    def test_two_adds_of_one_address_at_once(self) -> None:
        self.database.gate = Deferred()
        first = self.broker.add_node(node_config("a", host="h"))
        second = self.broker.add_node(node_config("b", host="h"))
        self.assertNoResult(second)
        self.database.gate.callback(None)
        self.successResultOf(first)
        self.failureResultOf(second, ConfigError)

    def test_change_of_the_address_replaces_the_worker(self) -> None:
        self.add("a")
        self.command_all(Duty.GENERATE, 1000, "AB", "02aa")
        for changes in (
            {"poc_port": 9},
            {"poc_port": 9, "poc_segment": "/s"},
            {"poc_port": 9, "websocket_url": "ws://h/ws"},
        ):
            old = self.worker("a")
            self.add("a", **changes)
            new = self.worker("a")
            self.assertIsNot(old, new)
            self.assertEqual((False, 1), (old.running, old.parent is None))
            self.assertTrue(new.running)
            self.assertEqual((1, 1), (new.node.num, new.batch_handler.node_num))
        self.assertEqual("websocket stop", self.stubs["a"].events[-1])

    def test_other_change_keeps_the_worker(self) -> None:
        self.add("a")
        old = self.worker("a")
        self.add("a", models={"new/model": {}}, hardware=[{"type": "H100", "count": 8}], max_concurrent=7)
        self.assertIs(old, self.worker("a"))
        self.assertEqual(["new/model"], list(old.node.config.models))
        self.command_all(Duty.INFERENCE)
        self.assertEqual("new/model", self.stubs["a"].bodies[-1]["model"])

    def test_change_keeps_a_disabled_node_disabled(self) -> None:
        self.add("a")
        self.successResultOf(self.broker.disable_node("a"))
        self.add("a", poc_port=9)
        self.assertFalse(self.worker("a").node.enabled)

    def test_new_worker_starts_when_the_old_one_is_gone(self) -> None:
        self.add("a")
        old = self.worker("a")
        websocket = self.websocket("a")
        websocket.closing = Deferred()
        self.add("a", poc_port=9)
        second = self.worker("a")
        commanded = self.commanding(Duty.GENERATE, 1000, "AB", "02aa")
        self.add("a", poc_port=10)
        new = self.worker("a")
        self.assertEqual((False, False, False), (old.running, second.running, new.running))
        self.assertNoResult(commanded)
        websocket.closing.callback(None)
        self.assertEqual((False, False, True), (old.running, second.running, bool(new.running)))
        self.assertFalse(self.successResultOf(commanded)["a"].succeeded)
        self.assertTrue(self.command_all(Duty.GENERATE, 1000, "AB", "02aa")["a"].succeeded)

    def test_answer_does_not_wait_for_the_node(self) -> None:
        self.add("a", "b")
        changes: list[tuple[str, Callable[[], Deferred[Any]]]] = [
            ("a", lambda: self.broker.disable_node("a")),
            ("a", lambda: self.broker.enable_node("a")),
            ("a", lambda: self.broker.add_node(node_config("a", poc_port=9))),
            ("b", lambda: self.broker.remove_node("b")),
        ]
        for name, doing in changes:
            self.stubs[name].held = {"stop", "state"}
            websocket = self.websocket(name)
            websocket.closing = Deferred()
            self.broker.command_all(Duty.STOPPED)
            self.successResultOf(doing())
            websocket.closing.callback(None)

    def test_remove(self) -> None:
        self.add("a", "b")
        worker = self.worker("a")
        self.successResultOf(self.broker.remove_node("a"))
        self.assertFalse(worker.running)
        self.assertEqual(["websocket stop"], self.stubs["a"].events)
        error = self.assertRaises(UnknownNodeError, self.broker.worker_by_num, 1)
        self.assertEqual("no node has the number 1", str(error))

    def test_nothing_is_kept_of_workers_that_are_gone(self) -> None:
        for number in range(20):
            self.add(f"node{number}")
            self.add(f"node{number}", poc_port=9)
            self.successResultOf(self.broker.remove_node(f"node{number}"))
        group = self.broker._group
        kept = {name: value for name, value in vars(group).items() if isinstance(value, Sized) and value}
        self.assertEqual({}, kept)

    def test_unknown_id(self) -> None:
        for change in (self.broker.remove_node, self.broker.enable_node, self.broker.disable_node):
            error = self.failureResultOf(change("nobody"), UnknownNodeError).value
            self.assertEqual("no node has the id 'nobody'", str(error))

    def test_unknown_number(self) -> None:
        for num in (-1, 0, 1):
            self.assertRaises(UnknownNodeError, self.broker.worker_by_num, num)

    def test_what_cannot_be_stored_changes_nothing(self) -> None:
        self.add("a")
        worker = self.worker("a")
        self.database.failure = StoreBusyError("full")
        for doing in (
            self.broker.add_node(node_config("b")),
            self.broker.add_node(node_config("a", poc_port=9)),
            self.broker.disable_node("a"),
            self.broker.remove_node("a"),
        ):
            self.failureResultOf(doing, StoreBusyError)
        self.assertEqual({"a": 1}, self.numbers())
        self.assertIs(worker, self.worker("a"))
        self.assertEqual(Node(node_config("a"), 1, True), worker.node)

    def test_change_is_finished_though_nobody_waits(self) -> None:
        self.database.gate = Deferred()
        adding = self.broker.add_node(node_config("a"))
        adding.cancel()
        self.failureResultOf(adding, CancelledError)
        self.database.gate.callback(None)
        self.assertEqual({"a": 1}, self.numbers())


class EnablingTests(BrokerTestCase):
    """Disabled nodes are left out, and their batches are still taken."""

    def test_disable(self) -> None:
        self.add("a", "b")
        self.command_all(Duty.GENERATE, 1000, "AB", "02aa")
        node = self.successResultOf(self.broker.disable_node("a"))
        self.assertFalse(node.enabled)
        self.assertEqual(["stop", "websocket stop"], self.stubs["a"].events[-2:])
        self.assertEqual({"b"}, set(self.command_all(Duty.GENERATE, 1000, "AB", "02aa")))
        handler = self.broker.worker_by_num(1).batch_handler
        self.assertEqual(1, self.successResultOf(handler.handle_generated_batch(generated_batch())).seen)

    def test_enable(self) -> None:
        self.add("a")
        self.successResultOf(self.broker.disable_node("a"))
        self.assertTrue(self.successResultOf(self.broker.enable_node("a")).enabled)
        self.assertEqual({"a"}, set(self.command_all(Duty.GENERATE, 1000, "AB", "02aa")))

    def test_kept_over_a_restart(self) -> None:
        self.add("a", "b")
        self.successResultOf(self.broker.disable_node("a"))
        self.restart()
        self.assertEqual([False, True], [node.enabled for node in self.broker.nodes()])
        self.assertEqual({"b"}, set(self.command_all(Duty.STOPPED)))


class AllNodesTests(BrokerTestCase):
    """Commands for all enabled nodes at once."""

    def test_start_poc(self) -> None:
        self.add("a", "b", "c")
        self.successResultOf(self.broker.remove_node("c"))
        results = self.command_all(Duty.GENERATE, 1000, "ABcd", "02aa")
        self.assertEqual({name: CommandResult(True, "GENERATING") for name in "ab"}, results)
        for name, num in (("a", 1), ("b", 2)):
            body = self.stubs[name].bodies[-1]
            self.assertEqual("pow/init/generate", self.stubs[name].events[-2])
            self.assertEqual((num, 4), (body["node_id"], body["node_count"]))
            self.assertEqual((1000, "ABcd", "02aa"), (body["block_height"], body["block_hash"], body["public_key"]))
            self.assertEqual(
                (f"{CALLBACK_URL}/{num}-1", 100, 1.4013564660458173, 1e-7, 1024),
                (
                    body["url"],
                    body["batch_size"],
                    body["r_target"],
                    body["fraud_threshold"],
                    body["params"]["dim"],
                ),
            )

    def test_node_count_over_a_restart(self) -> None:
        self.add("a", "b", "c")
        self.successResultOf(self.broker.remove_node("c"))
        self.restart()
        self.command_all(Duty.VALIDATE, 1000, "AB", "02aa")
        self.assertEqual(4, self.stubs["a"].bodies[-1]["node_count"])

    def test_the_other_commands(self) -> None:
        self.add("a", "b")
        for duty, status in (
            (Duty.VALIDATE, "VALIDATING"),
            (Duty.INFERENCE, "INFERENCE"),
            (Duty.STOPPED, "STOPPED"),
        ):
            results = self.command_all(duty, 1000, "AB", "02aa")
            self.assertEqual({name: CommandResult(True, status) for name in "ab"}, results)

    def test_slow_node_delays_nobody(self) -> None:
        self.add("a", "b")
        self.stubs["a"].held = {"state"}
        both = self.commanding(Duty.GENERATE, 1000, "AB", "02aa")
        self.assertEqual("websocket restart", self.stubs["b"].events[-1])
        self.assertNoResult(both)
        self.stubs["a"].release()
        self.assertEqual([True, True], [result.succeeded for result in self.successResultOf(both).values()])

    def test_one_failure_is_one_nodes(self) -> None:
        self.add("a", "b")
        self.stubs["a"].refused["pow/init/generate"] = 500
        results = self.command_all(Duty.GENERATE, 1000, "AB", "02aa")
        self.assertEqual({"a": False, "b": True}, {name: result.succeeded for name, result in results.items()})

    def test_no_node(self) -> None:
        self.assertEqual({}, self.command_all(Duty.GENERATE, 1000, "AB", "02aa"))
