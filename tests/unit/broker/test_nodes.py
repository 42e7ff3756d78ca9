"""Nodes: what a configuration may say, and numbers that are kept for good."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from dapi.broker.nodes import (
    Hardware,
    ModelConfig,
    Node,
    NodeStore,
    check_apart,
    decode_node_config,
    decode_node_configs,
)
from dapi.database import Database
from dapi.errors import ConfigError, StoreBusyError, UnknownNodeError
from tests.nodes import SynchronousDatabase, node_config, node_fields


class DecodingTests(SynchronousTestCase):
    """A configuration is taken as a whole, or refused with the field named."""

    def test_all_fields(self) -> None:
        config = decode_node_config(
            node_fields(
                inference_segment="/inference",
                poc_segment="/poc",
                hardware=[{"type": "A100", "count": 8}],
                version="v3.0.8",
                websocket_url="wss://sockets.example/node1/ws",
            )
        )
        self.assertEqual(ModelConfig(("--quantization", "fp8")), config.models["Qwen/Qwen2.5-7B-Instruct"])
        self.assertEqual(ModelConfig(()), config.models["other/model"])
        self.assertEqual((Hardware("A100", 8),), config.hardware)
        self.assertEqual("http://node1.example:8080/v3.0.8/poc", config.poc_url)
        self.assertEqual("wss://sockets.example/node1/ws", Node(config, 1).websocket_base)

    def test_only_what_must_be_there(self) -> None:
        fields = node_fields()
        del fields["max_concurrent"]
        self.assertEqual(500, decode_node_config(fields).max_concurrent)

    def test_what_the_admin_api_shows_can_be_given_back(self) -> None:
        self.assertEqual(decode_node_config(node_fields()), decode_node_config(node_fields() | {"node_num": 3}))

    def test_inference_url(self) -> None:
        for changes, expected in (
            ({"host": "h"}, "http://h:5000"),
            ({"host": "https://h", "version": "v3", "inference_segment": "a/"}, "https://h:5000/v3/a"),
        ):
            self.assertEqual(expected, node_config(**changes).inference_url)

    def test_poc_url(self) -> None:
        for changes, expected in (
            ({"host": "10.0.0.21"}, "http://10.0.0.21:8080"),
            ({"host": "http://10.0.0.21"}, "http://10.0.0.21:8080"),
            ({"host": "http://10.0.0.21/"}, "http://10.0.0.21:8080"),
            ({"host": "https://ml.example"}, "https://ml.example:8080"),
            ({"host": "::1"}, "http://[::1]:8080"),
            ({"host": "[::1]"}, "http://[::1]:8080"),
            ({"host": "h", "poc_segment": "poc/"}, "http://h:8080/poc"),
            ({"host": "h", "version": "/v1/", "poc_segment": "/a/b"}, "http://h:8080/v1/a/b"),
        ):
            config = node_config(**changes)
            self.assertEqual(expected, config.poc_url)
            self.assertEqual(expected, Node(config, 1).websocket_base)

    def test_refused(self) -> None:
        for changes, field in (
            ({"id": ""}, "id"),
            ({"id": " node1"}, "id"),
            ({"id": "node\n1"}, "id"),
            ({"id": "rack/1"}, "id"),
            ({"id": "x" * 129}, "id"),
            ({"id": 7}, "id"),
            ({"host": ""}, "host"),
            ({"host": "http://"}, "host"),
            ({"host": "ftp://h"}, "host"),
            ({"host": "h:8080"}, "host"),
            ({"host": "h/path"}, "host"),
            ({"host": "user:secret@h"}, "host"),
            ({"host": "h h"}, "host"),
            ({"host": "ml_node"}, "host"),
            ({"host": "ml_node", "websocket_url": "ws://h/ws"}, "host"),
            ({"host": "h", "websocket_url": "ws://ml_node/ws"}, "websocket_url"),
            ({"poc_port": 0}, "poc_port"),
            ({"poc_port": 65536}, "poc_port"),
            ({"poc_port": "8080"}, "poc_port"),
            ({"poc_port": True}, "poc_port"),
            ({"inference_port": 0}, "inference_port"),
            ({"inference_port": 65536}, "inference_port"),
            ({"max_concurrent": 0}, "max_concurrent"),
            ({"models": {}}, "models"),
            ({"models": ["Qwen"]}, "models"),
            ({"models": {"Qwen": {"arguments": []}}}, "models[...].arguments"),
            ({"hardware": [{"type": "A100", "count": -1}]}, "hardware[0].count"),
            ({"hardware": [{"type": "A100", "count": 2**32}]}, "hardware[0].count"),
            ({"poc_segment": "/poc?x=1"}, "poc_segment"),
            ({"inference_segment": "/a b"}, "inference_segment"),
            ({"version": "v1#2"}, "version"),
            ({"websocket_url": "http://h/ws"}, "websocket_url"),
            ({"websocket_url": "ws://h"}, "websocket_url"),
            ({"websocket_url": "ws://user:secret@h/ws"}, "websocket_url"),
            ({"tls_ca_file": "/there/is/no/such.pem"}, "tls_ca_file"),
            ({"tls_fingerprint": "ab:cd"}, "tls_fingerprint"),
            ({"poc_prot": 8080}, "poc_prot"),
        ):
            error = self.assertRaises(ConfigError, decode_node_config, node_fields() | changes)
            self.assertIn(f": {field}: ", str(error))
            self.assertNotIn("secret", str(error))

    def test_missing_field(self) -> None:
        for field in ("id", "host", "inference_port", "poc_port", "models"):
            fields = node_fields()
            del fields[field]
            error = self.assertRaises(ConfigError, decode_node_config, fields)
            name = "node" if field == "id" else "node node1"
            self.assertEqual(f"{name}: {field}: is missing", str(error))

    def test_no_object(self) -> None:
        values: list[object] = [None, [], "node1", 7]
        for value in values:
            self.assertRaises(ConfigError, decode_node_config, value)

    def test_longest_id_and_ports(self) -> None:
        config = node_config("x" * 128, host="h", poc_port=1, inference_port=65535)
        self.assertEqual((128, 1, 65535), (len(config.id), config.poc_port, config.inference_port))

    def test_list(self) -> None:
        configs = decode_node_configs([node_fields("a"), node_fields("b")])
        self.assertEqual(["a", "b"], [config.id for config in configs])

    def test_bad_lists(self) -> None:
        bad: list[tuple[Any, str]] = [
            ({"nodes": []}, "expected a list"),
            ([node_fields("a"), node_fields("b", poc_port=0)], "node b: poc_port"),
            ([node_fields("a"), node_fields("a", poc_port=9)], "node a: id: is in the list twice"),
            ([node_fields("a"), node_fields("b", host="A.example")], "node b: host, poc_port"),
        ]
        for value, message in bad:
            self.assertIn(message, str(self.assertRaises(ConfigError, decode_node_configs, value)))

    def test_a_long_list_takes_time_in_proportion(self) -> None:
        """Each node compared with each other took 100 s for 5,000 nodes: ten times as many, a hundred times as long."""

        def seconds_for(count: int) -> float:
            fields = [node_fields(f"n{num}", poc_segment=f"/{num}") for num in range(count)]
            began = time.process_time()
            decode_node_configs(fields)
            return time.process_time() - began

        self.assertLess(seconds_for(10_000), 50 * seconds_for(1_000))

    def test_apart(self) -> None:
        one = node_config("a", host="h", poc_port=1)
        check_apart(one, one)
        for other in (
            node_config("b", host="h", poc_port=2),
            node_config("b", host="g", poc_port=1),
            node_config("b", host="h", poc_port=1, poc_segment="/b"),
        ):
            check_apart(one, other)
        for other in (
            node_config("b", host="http://H/", poc_port=1),
            node_config("b", host="h", poc_port=1, version="v2"),
        ):
            self.assertRaises(ConfigError, check_apart, one, other)


class NodeStoreTests(SynchronousTestCase):
    """The promises of NodeStore, without threads."""

    def setUp(self) -> None:
        self.database = SynchronousDatabase(self.mktemp())
        self.addCleanup(self.database.close)
        self.store = NodeStore(self.database)

    def test_empty(self) -> None:
        stored = self.successResultOf(self.store.load())
        self.assertEqual(([], 0), (stored.nodes, stored.highest_num))

    def test_numbers_from_1_in_order(self) -> None:
        nodes = [self.successResultOf(self.store.save(node_config(name))) for name in "cab"]
        self.assertEqual([("c", 1), ("a", 2), ("b", 3)], [(node.id, node.num) for node in nodes])
        stored = self.successResultOf(self.store.load())
        self.assertEqual((nodes, 3), (stored.nodes, stored.highest_num))

    def test_many_at_once(self) -> None:
        self.successResultOf(self.store.save(node_config("a")))
        models = {"m": {"args": ["--x", "é'\u2028\"\\"]}}
        configs = [node_config('"é\\', host="h", models=models), node_config("b"), node_config("a", poc_port=9)]
        nodes = self.successResultOf(self.store.save_all(configs))
        self.assertEqual([(configs[0], 2), (configs[1], 3), (configs[2], 1)], [(n.config, n.num) for n in nodes])
        by_num = [nodes[2], nodes[0], nodes[1]]
        self.assertEqual(by_num, self.successResultOf(self.store.load()).nodes)
        self.assertEqual([], self.successResultOf(self.store.save_all([])))

    def test_change_keeps_number_and_enabled(self) -> None:
        self.successResultOf(self.store.save(node_config("a")))
        self.successResultOf(self.store.set_enabled("a", False))
        changed = node_config("a", poc_port=9)
        self.assertEqual(Node(changed, 1, False), self.successResultOf(self.store.save(changed)))
        self.assertEqual([Node(changed, 1, False)], self.successResultOf(self.store.load()).nodes)

    def test_enable(self) -> None:
        self.successResultOf(self.store.save(node_config("a")))
        for enabled in (False, True):
            self.successResultOf(self.store.set_enabled("a", enabled))
            self.assertEqual([enabled], [node.enabled for node in self.successResultOf(self.store.load()).nodes])

    def test_number_of_a_removed_node_is_kept(self) -> None:
        for name in "ab":
            self.successResultOf(self.store.save(node_config(name)))
        self.successResultOf(self.store.remove("b"))
        stored = self.successResultOf(self.store.load())
        self.assertEqual((["a"], 2, {"b"}), ([n.id for n in stored.nodes], stored.highest_num, stored.removed))
        self.assertEqual(3, self.successResultOf(self.store.save(node_config("c"))).num)
        self.assertEqual(Node(node_config("b"), 2), self.successResultOf(self.store.save(node_config("b"))))

    def test_removed_and_disabled_node_comes_back_enabled(self) -> None:
        self.successResultOf(self.store.save(node_config("a")))
        self.successResultOf(self.store.set_enabled("a", False))
        self.successResultOf(self.store.remove("a"))
        self.assertTrue(self.successResultOf(self.store.save(node_config("a"))).enabled)

    def test_unknown_node(self) -> None:
        self.successResultOf(self.store.save(node_config("a")))
        self.successResultOf(self.store.remove("a"))
        for doing in (self.store.remove("a"), self.store.set_enabled("a", True), self.store.remove("b")):
            self.failureResultOf(doing, UnknownNodeError)

    def test_entry_that_cannot_be_read_is_told(self) -> None:
        for name in "ab":
            self.successResultOf(self.store.save(node_config(name)))
        self.successResultOf(
            self.database.write(lambda c: c.execute("UPDATE nodes SET config = '{\"id\": 1}' WHERE id = 'b'"))
        )
        stored = self.successResultOf(self.store.load())
        self.assertEqual((["a"], 2), ([n.id for n in stored.nodes], stored.highest_num))
        self.assertEqual({"b": "node: id: Expected `str`, got `int`"}, stored.unreadable)

    def test_failures_pass(self) -> None:
        self.database.failure = StoreBusyError("full")
        for doing in (self.store.load(), self.store.save(node_config())):
            self.failureResultOf(doing, StoreBusyError)


class NodesInTheDatabaseTests(TestCase):
    """The same store over the real Database, and over its restart."""

    def database(self, path: str) -> Database:
        from twisted.internet import reactor

        return Database(reactor, path, on_broken=self.fail)

    async def test_kept_over_a_restart(self) -> None:
        path = self.mktemp()
        database = self.database(path)
        database.startService()
        store = NodeStore(database)
        for name in "abc":
            await store.save(node_config(name))
        await store.remove("a")
        await store.set_enabled("c", False)
        with self.assertRaises(UnknownNodeError):
            await store.remove("a")
        await database.stopService()

        database = self.database(path)
        database.startService()
        stored = await NodeStore(database).load()
        await database.stopService()
        self.assertEqual([Node(node_config("b"), 2), Node(node_config("c"), 3, False)], stored.nodes)
        self.assertEqual((3, {"a"}), (stored.highest_num, stored.removed))
