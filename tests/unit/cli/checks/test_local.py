"""What ``dapi check`` finds on this machine."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.cli.checks import local
from dapi.cli.checks.local import is_in_use, known_nodes, local_checks
from dapi.cli.checks.result import Check
from dapi.config import ApiConfig, ChainNodeConfig, Config, PocV2Config, Secret, StorageConfig, TlsConfig
from dapi.database.file import open_prepared, take_lock
from tests.fake_broker import node_fields
from tests.integration.certificates import Authority
from tests.integration.ports import free_port


def node(node_id: str = "node1", **changes: Any) -> NodeConfig:
    return decode_node_config(node_fields(node_id, **changes))


class LocalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "outbox.db"
        self.api: dict[str, Any] = {"ml_server_host": "127.0.0.1", "ml_server_port": 0, "admin_server_port": 0}
        self.others: dict[str, Any] = {}

    def config(self) -> Config:
        sections: dict[str, Any] = {"storage": StorageConfig(path=str(self.path)), **self.others}
        return Config(api=ApiConfig(**self.api), **sections)

    def found(self, name: str) -> Check:
        """The first check of this name."""
        return next(check for check in local_checks(self.config()) if check.name == name)

    def result(self, name: str) -> str:
        return self.found(name).result

    def lock(self) -> None:
        lock = take_lock(self.path)
        self.addCleanup(os.close, lock)


class CheckTests(LocalTestCase):
    def test_nothing_is_made_or_changed(self) -> None:
        list(local_checks(self.config()))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_every_failure_says_what_to_do(self) -> None:
        self.api |= {"poc_callback_url": "http://127.0.0.1:1"}
        self.others = {"nodes": (node(),), "chain_node": ChainNodeConfig(url="http://127.0.0.1:1")}
        failures = [check for check in local_checks(self.config()) if check.result == "FAIL"]
        self.assertGreaterEqual(len(failures), 2)
        self.assertEqual([check for check in failures if not check.to_do], [])

    def test_key(self) -> None:
        self.assertEqual(self.result("key"), "SKIPPED")
        key = self.folder / "key"
        self.others = {"chain_node": ChainNodeConfig(url="http://127.0.0.1:1", key_file=str(key))}
        self.assertIn("cannot be read", self.found("key").found)
        self.assertEqual(self.found("key").to_do, "look at chain_node.key_file")
        key.write_text("1" * 64)
        key.chmod(0o600)
        self.assertIn("signs for gonka1", self.found("key").found)
        self.assertNotIn("1" * 32, str(list(local_checks(self.config()))))

    def test_a_host_of_poc_v2_alone_needs_neither_key_nor_callback_url(self) -> None:
        not_needed = {"key", "callback URL"}
        self.assertLessEqual(not_needed, {check.name for check in local_checks(self.config())})
        for poc_v2 in (PocV2Config(relay=True), PocV2Config(watch=True)):
            self.others = {"poc_v2": poc_v2}
            self.assertFalse(not_needed & {check.name for check in local_checks(self.config())})
            self.others["chain_node"] = ChainNodeConfig(url="http://127.0.0.1:1")
            self.assertLessEqual(not_needed, {check.name for check in local_checks(self.config())})

    def test_database(self) -> None:
        self.assertIn("will be made", self.found("database").found)
        open_prepared(self.path).close()
        self.assertIn("is whole: no batches", self.found("database").found)
        self.path.write_bytes(b"no database")
        self.assertEqual(self.result("database"), "FAIL")
        self.lock()
        self.assertEqual(self.result("database"), "SKIPPED")

    def test_what_the_start_would_refuse(self) -> None:
        log = Path(f"{self.path}-wal")
        log.write_bytes(b"the newest rows")
        check = self.found("database")
        self.assertEqual((check.result, "its -wal file is there" in check.found), ("FAIL", True))
        self.assertIn("bring the file back", str(check.to_do))
        log.unlink()
        self.path.touch()
        self.assertIn("is empty", self.found("database").found)
        self.others = {"storage": StorageConfig(path=str(self.path), new_database=True)}
        self.assertIn("will be made", self.found("database").found)

    def test_a_newer_one_is_not_to_be_begun_anew(self) -> None:
        connection = open_prepared(self.path)
        connection.execute("PRAGMA user_version = 1000")
        connection.close()
        self.assertIn("install that version again", str(self.found("database").to_do))

    def test_files_of_another_user(self) -> None:
        open_prepared(self.path).close()
        for suffix in ("", "-wal", ".lock", ".secret"):
            closed = Path(f"{self.path}{suffix}")
            closed.touch()
            self.patch(os, "access", lambda path, _mode, closed=closed: path != closed)
            check = self.found("database")
            self.assertEqual((check.result, f"{closed} cannot be" in check.found), ("FAIL", True))
            self.assertIn("chown", str(check.to_do))

    def test_a_folder_that_may_not_be_entered(self) -> None:
        real = os.stat

        def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            if str(path).startswith(f"{self.folder}/"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, *arguments, **options)

        self.patch(os, "stat", refuse)
        self.patch(os, "access", lambda _path, _mode: False)
        self.assertEqual(self.found("database").found, f"{self.folder} cannot be written by this user")
        self.assertEqual(known_nodes(self.config()), [])

    def test_a_folder_that_is_not_there_yet(self) -> None:
        self.path = self.folder / "a" / "b" / "outbox.db"
        self.assertEqual((self.result("database"), self.result("disk")), ("PASS", "PASS"))
        self.assertFalse((self.folder / "a").exists())

    def test_disk(self) -> None:
        usage = shutil.disk_usage(self.folder)
        self.patch(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
        check = self.found("disk")
        self.assertEqual((check.result, "32 MiB" in str(check.to_do)), ("FAIL", True))

    def test_ports(self) -> None:
        self.assertEqual(self.result("admin port"), "PASS")
        self.api["admin_server_port"] = free_port()
        with socket.create_server(("127.0.0.1", self.api["admin_server_port"])):
            self.assertIn("another program has it", self.found("admin port").found)
            self.lock()
            self.assertEqual(self.result("admin port"), "SKIPPED")
        self.assertEqual(self.result("admin port"), "PASS")

    def test_an_address_that_is_not_of_this_machine(self) -> None:
        self.api |= {"admin_server_host": "192.0.2.1", "admin_server_port": 9200}
        self.assertEqual(self.result("admin port"), "FAIL")

    def test_admin_api(self) -> None:
        self.assertEqual(self.result("admin API"), "PASS")
        self.api["admin_server_host"] = "0.0.0.0"
        self.assertEqual(self.result("admin API"), "FAIL")
        self.api["admin_token"] = Secret("a-long-secret-token")
        self.assertEqual(self.result("admin API"), "PASS")
        self.assertNotIn("a-long-secret-token", str(list(local_checks(self.config()))))

    def test_certificate(self) -> None:
        self.assertNotIn("certificate", [check.name for check in local_checks(self.config())])
        for days, result, said in (
            (60, "PASS", "ends in 60 days"),
            (10, "FAIL", "ends in 10.0 days"),
            (-3, "FAIL", "ended 3.0 days ago"),
        ):
            certificate, key = Authority().write_for(self.folder, "localhost", days=days)
            self.others = {"tls": TlsConfig(certificate=certificate, key=key)}
            check = self.found("certificate")
            self.assertEqual(check.result, result)
            self.assertIn(said, str(check))
        Path(key).unlink()
        self.assertEqual(self.result("certificate"), "FAIL")

    def test_open_files(self) -> None:
        self.assertEqual(self.result("open files"), "PASS")
        self.patch(resource, "getrlimit", lambda _: (64, 64))
        self.assertEqual(self.result("open files"), "FAIL")


class CallbackUrlTests(LocalTestCase):
    def url(self, url: str | None) -> Check:
        self.api["poc_callback_url"] = url
        return self.found("callback URL")

    def test_none_is_needed_on_one_machine(self) -> None:
        self.others = {"nodes": (node(host="127.0.0.1"),)}
        self.assertEqual(self.url(None).result, "PASS")

    def test_nodes_elsewhere_need_one_that_leads_here(self) -> None:
        self.others = {"nodes": (node(),)}
        self.assertEqual(self.url(None).result, "FAIL")
        self.assertIn("is the node itself", self.url("http://127.0.0.1:9100").found)

    def test_a_name_that_is_not_found(self) -> None:
        self.assertIn("is not found", self.url("http://nowhere.invalid:9100").found)

    def test_one_that_leads_to_the_callback_port(self) -> None:
        port = self.api["ml_server_port"] = free_port()
        self.assertIn("leads to the callback port", self.url(f"http://127.0.0.1:{port}").found)

    def test_one_that_leads_elsewhere(self) -> None:
        self.patch(local, "_CONNECT_SECONDS", 0.2)
        self.api["ml_server_port"] = free_port()
        with socket.create_server(("127.0.0.1", 0)) as other:
            check = self.url(f"http://127.0.0.1:{other.getsockname()[1]}")
        self.assertEqual((check.result, "does not lead" in check.found), ("SKIPPED", True))

    def test_while_a_dapi_runs(self) -> None:
        self.lock()
        port = self.api["ml_server_port"] = free_port()
        with socket.create_server(("127.0.0.1", port)):
            self.assertIn("something answers", self.url(f"http://127.0.0.1:{port}").found)
        self.assertEqual(self.url(f"http://127.0.0.1:{port}").result, "SKIPPED")

    def test_that_only_a_node_can_tell_is_said(self) -> None:
        for url in ("http://127.0.0.1:9100", "http://127.0.0.1:9100/v1/poc-batches/"):
            self.url(url)
            to_do = str(self.found("callback URL, from the nodes").to_do)
            self.assertIn("dapi node test", to_do)
            self.assertIn("curl -i http://127.0.0.1:9100/healthz", to_do)


class NodeTests(LocalTestCase):
    def test_the_database_wins(self) -> None:
        self.others = {"nodes": (node("a"), node("b", poc_port=1), node("c", poc_port=2))}
        self.assertEqual([each.id for each in known_nodes(self.config())], ["a", "b", "c"])
        connection = open_prepared(self.path)
        rows = [
            ("a", node("a", host="10.9.9.9"), 1, 0),
            ("b", node("b"), 1, 1),
            ("c", node("c"), 0, 0),
            ("d", node("d"), 1, 0),
        ]
        for node_id, config, enabled, removed in rows:
            values = (node_id, msgspec.json.encode(config).decode(), enabled, removed)
            connection.execute("INSERT INTO nodes (id, config, enabled, removed) VALUES (?, ?, ?, ?)", values)
        connection.execute("INSERT INTO nodes (id, config, enabled, removed) VALUES ('x', '{', 1, 0)")
        connection.close()
        self.assertEqual(
            {each.id: each.host for each in known_nodes(self.config())}, {"a": "10.9.9.9", "d": "10.0.0.1"}
        )

    def test_in_use(self) -> None:
        self.assertFalse(is_in_use(self.path))
        self.assertFalse(Path(f"{self.path}.lock").exists())
        self.lock()
        self.assertTrue(is_in_use(self.path))
