"""Where settings come from, which wins, and what is said about a wrong one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.config import Config, Secret, load_config
from dapi.errors import ConfigError

PUBLIC_KEY = "Ag" + "A" * 42


class ConfigTestCase(SynchronousTestCase):
    """A folder for files."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, text: str | bytes, name: str = "config.yaml") -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def load(self, text: str, **environ: str) -> Config:
        config, warnings = load_config(self.write(text), environ=environ)
        self.assertEqual(warnings, [])
        return config

    def refused(self, text: str = "", **environ: str) -> str:
        path = self.write(text)
        return str(self.assertRaises(ConfigError, load_config, path, environ=environ))


class SourceTests(ConfigTestCase):
    """What each source sets, and which one wins."""

    def test_defaults_are_those_of_the_network(self) -> None:
        config, warnings = load_config()
        self.assertEqual(warnings, [])
        self.assertEqual(config, Config())
        self.assertEqual((config.api.ml_server_host, config.api.ml_server_port), ("0.0.0.0", 9100))
        self.assertEqual((config.api.admin_server_host, config.api.admin_server_port), ("127.0.0.1", 9200))
        self.assertEqual((config.websocket.idle_seconds, config.websocket.max_message_bytes), (60.0, 16 * 2**20))
        self.assertFalse(config.websocket.compression)
        self.assertIsNone(config.chain_node.url)
        self.assertEqual(config.poc.network, "main")
        self.assertEqual(config.nodes, ())

    def test_file(self) -> None:
        config = self.load(
            f"""
            api: {{ml_server_port: 0, admin_server_port: 65535, poc_callback_url: "http://api:9100"}}
            chain_node:
              url: http://node:26657
              account_public_key: {PUBLIC_KEY}
              signer_key_name: warm
              keyring_backend: test
              keyring_dir: /keys
            storage: {{path: /data/x.db, reserve_bytes: 8388608}}
            websocket: {{idle_seconds: 90, max_message_bytes: 1024, compression: true}}
            tls: {{ca_file: /ca.pem}}
            poc: {{network: test}}
            """
        )
        self.assertEqual((config.api.ml_server_port, config.api.admin_server_port), (0, 65535))
        self.assertEqual(config.api.poc_callback_url, "http://api:9100")
        chain = config.chain_node
        self.assertEqual((chain.url, chain.account_public_key), ("http://node:26657", PUBLIC_KEY))
        self.assertEqual((chain.signer_key_name, chain.keyring_backend, chain.keyring_dir), ("warm", "test", "/keys"))
        self.assertEqual((config.storage.path, config.storage.reserve_bytes), ("/data/x.db", 2**23))
        websocket = config.websocket
        self.assertEqual((websocket.idle_seconds, websocket.max_message_bytes), (90.0, 1024))
        self.assertEqual((websocket.compression, config.tls.ca_file), (True, "/ca.pem"))
        self.assertEqual(config.poc.network, "test")

    def test_a_former_name_still_works(self) -> None:
        for text, environ, expected in (
            ("websocket: {ca_file: /old.pem}", {}, "/old.pem"),
            ("websocket: {ca_file: /old.pem}\ntls: {ca_file: /new.pem}", {}, "/new.pem"),
            ("", {"DAPI_WEBSOCKET__CA_FILE": "/old.pem"}, "/old.pem"),
            ("", {"DAPI_TLS__CA_FILE": "/new.pem"}, "/new.pem"),
        ):
            config, warnings = load_config(self.write(text), environ=environ)
            self.assertEqual((config.tls.ca_file, warnings), (expected, []))

    def test_an_empty_file_and_a_key_without_value_set_nothing(self) -> None:
        self.assertEqual(self.load(""), Config())
        self.assertEqual(self.load("api:\n  ml_server_port:\nnodes:\n"), Config())
        self.assertEqual(self.load("api: {ml_server_host: '', poc_callback_url: ''}"), Config())

    def test_environment_overrides_the_file(self) -> None:
        config = self.load(
            "api: {ml_server_port: 1, admin_server_port: 2}",
            DAPI_API__ML_SERVER_PORT="3",
            DAPI_WEBSOCKET__COMPRESSION="true",
            DAPI_WEBSOCKET__IDLE_SECONDS="7.5",
            DAPI_CHAIN_NODE__URL="https://rpc",
            DAPI_CHAIN_NODE__DECLARE_NODES="false",
            DAPI_CHAIN_NODE__CLAIM_REWARDS="false",
            DAPI_STORAGE__PATH="/elsewhere",
        )
        self.assertEqual((config.chain_node.declare_nodes, config.chain_node.claim_rewards), (False, False))
        self.assertEqual((config.api.ml_server_port, config.api.admin_server_port), (3, 2))
        self.assertIs(config.websocket.compression, True)
        self.assertEqual(config.websocket.idle_seconds, 7.5)
        self.assertEqual(config.chain_node.url, "https://rpc")
        self.assertEqual(config.storage.path, "/elsewhere")

    def test_the_networks_variables_override_the_general_ones(self) -> None:
        config = self.load(
            "chain_node: {signer_key_name: a, keyring_backend: test}",
            DAPI_CHAIN_NODE__SIGNER_KEY_NAME="b",
            KEY_NAME="c",
            ACCOUNT_PUBKEY=PUBLIC_KEY,
            KEYRING_BACKEND="file",
            KEYRING_PASSWORD="hunter2",
            IS_TEST_NET="true",
        )
        chain = config.chain_node
        self.assertEqual((chain.signer_key_name, chain.account_public_key), ("c", PUBLIC_KEY))
        self.assertEqual(chain.keyring_backend, "file")
        self.assertEqual(chain.keyring_password, Secret("hunter2"))
        self.assertEqual(config.poc.network, "test")

    def test_only_the_exact_word_makes_it_the_test_network(self) -> None:
        self.assertEqual(self.load("", IS_TEST_NET="1").poc.network, "main")
        self.assertEqual(self.load("poc: {network: test}", IS_TEST_NET="false").poc.network, "test")

    def test_options_override_everything(self) -> None:
        path = self.write("api: {ml_server_port: 1}")
        environ = {"API_CONFIG_PATH": path, "DAPI_API__ML_SERVER_PORT": "2"}
        config, _ = load_config(environ=environ, options={"callback-port": "3"})
        self.assertEqual(config.api.ml_server_port, 3)

    def test_the_files_path_comes_from_the_option_or_the_environment(self) -> None:
        one, two = self.write("storage: {path: one}", "1.yaml"), self.write("storage: {path: two}", "2.yaml")
        self.assertEqual(load_config(environ={"API_CONFIG_PATH": one})[0].storage.path, "one")
        self.assertEqual(load_config(two, environ={"API_CONFIG_PATH": one})[0].storage.path, "two")

    def test_an_empty_variable_is_not_set(self) -> None:
        config = self.load("chain_node: {signer_key_name: a}", KEY_NAME="", API_CONFIG_PATH="", KEYRING_BACKEND="")
        self.assertEqual(config.chain_node.signer_key_name, "a")

    def test_two_loads_share_nothing(self) -> None:
        self.load("", DAPI_API__ML_SERVER_PORT="3")
        self.assertEqual(self.load("").api.ml_server_port, 9100)


class RefusalTests(ConfigTestCase):
    """A wrong value is named with its source and what is allowed."""

    def test_every_wrong_value_in_a_file(self) -> None:
        for key, values, allowed in (
            ("api.ml_server_port", ("70000", "-1", "'9100'", "yes", "1.5", "[1]", "{a: 1}"), "0 to 65535"),
            ("api.admin_server_host", ("5", "[a]"), "a text"),
            (
                "api.poc_callback_url",
                ("api:9100", "ftp://x", "'http://'", '"http://a\\nb"', "7", "http://a:x", "'http://[::1'"),
                "http://",
            ),
            (
                "api.poc_callback_url",
                ("'http://a?b=c'", "'http://a/#b'", "http://a:65536", "'http://[1:::2]'"),
                "without a query",
            ),
            ("chain_node.url", ("node", "ftp://node:26657", '"http://a,b"'), "http://"),
            (
                "chain_node.account_public_key",
                ("AAAA", "B" + "A" * 43, PUBLIC_KEY + "A", '"' + PUBLIC_KEY + '\\n"'),
                "33 bytes",
            ),
            ("chain_node.keyring_backend", ("os", "File", "1"), "one of file, test"),
            ("storage.keep_finished", ("0", "-1", "0.9", "36501", "30d", "nan"), "a number of days, 1 to 36500"),
            ("storage.reserve_bytes", ("-1", "0", "8388607", "1.5", "16M"), "8 MiB at least"),
            ("websocket.idle_seconds", ("0", "-3", ".nan", ".inf", "soon"), "seconds"),
            ("websocket.max_message_bytes", ("1023", "0"), "1024"),
            ("websocket.compression", ("1", "'true'"), "true or false"),
            ("poc.network", ("mainnet",), "one of main, test"),
        ):
            for value in values:
                section, name = key.split(".")
                message = self.refused(f"{section}: {{{name}: {value}}}")
                self.assertIn(key, message)
                self.assertIn("config.yaml", message)
                self.assertIn(allowed, message)

    def test_a_wrong_variable_is_named(self) -> None:
        message = self.refused(DAPI_API__ADMIN_SERVER_PORT="http")
        for part in ("api.admin_server_port", "environment DAPI_API__ADMIN_SERVER_PORT", "'http'", "0 to 65535"):
            self.assertIn(part, message)
        self.assertIn("environment ACCOUNT_PUBKEY", self.refused(ACCOUNT_PUBKEY="abc"))
        self.assertIn("environment KEYRING_BACKEND", self.refused(KEYRING_BACKEND="os"))

    def test_a_wrong_option_is_named(self) -> None:
        error = self.assertRaises(ConfigError, load_config, options={"callback-port": "99999"})
        self.assertIn("option --callback-port", str(error))

    def test_files_that_are_no_configuration(self) -> None:
        for text, said in (
            ("- a\n- b", "mapping"),
            ("api: 9100", "api"),
            ("api: [9100]", "api"),
            ("api: {ml_server_port: 1", "line 1"),
            ("a: b: c", "line 1, column 5"),
            ("a: 2026-13-45", "YAML"),
            ("? [a]\n: b", "YAML"),
        ):
            message = self.refused(text)
            self.assertIn(said, message)
            self.assertIn("config.yaml", message)
        error = self.assertRaises(ConfigError, load_config, self.write(b"api: \xff"))
        self.assertIn("UTF-8", str(error))

    def test_a_file_that_is_not_there(self) -> None:
        path = str(self.folder / "none.yaml")
        self.assertIn(f"{path}: cannot be read", str(self.assertRaises(ConfigError, load_config, path)))
        error = self.assertRaises(ConfigError, load_config, environ={"NODE_CONFIG_PATH": path})
        self.assertIn(path, str(error))
        self.assertRaises(ConfigError, load_config, str(self.folder))


class NodeTests(ConfigTestCase):
    """Nodes, from the file and from a list in the form of node-config.json."""

    def node(self, node_id: str, port: int = 8080, **more: object) -> dict[str, object]:
        return {
            "id": node_id,
            "host": "10.0.0.1",
            "inference_port": 5000,
            "poc_port": port,
            "models": {"m": {}},
            **more,
        }

    def test_from_the_file(self) -> None:
        config = self.load(json.dumps({"nodes": [self.node("a"), self.node("b", 8081)]}))
        self.assertEqual([(node.id, node.poc_port) for node in config.nodes], [("a", 8080), ("b", 8081)])

    def test_from_a_list_of_the_environment_or_the_option(self) -> None:
        one = self.write(json.dumps([self.node("a")]), "1.json")
        two = self.write(json.dumps([self.node("b")]), "2.json")
        environ = {"NODE_CONFIG_PATH": one}
        self.assertEqual([node.id for node in load_config(environ=environ)[0].nodes], ["a"])
        self.assertEqual([node.id for node in load_config(environ=environ, node_config_path=two)[0].nodes], ["b"])

    def test_the_list_wins_where_both_name_a_node(self) -> None:
        path = self.write(json.dumps([self.node("b", 9000), self.node("c", 9001)]), "nodes.json")
        config = self.load(json.dumps({"nodes": [self.node("a"), self.node("b", 8081)]}), NODE_CONFIG_PATH=path)
        self.assertEqual([(node.id, node.poc_port) for node in config.nodes], [("a", 8080), ("b", 9000), ("c", 9001)])

    def test_a_wrong_node_is_named_with_its_file(self) -> None:
        for wrong, said in (
            (self.node("a", 0), "poc_port"),
            (self.node("a", max_concurrent=0), "max_concurrent"),
            (self.node("a", models={}), "models"),
            (self.node("", 1), "id"),
            ("a", "node"),
        ):
            path = self.write(json.dumps([wrong]), "nodes.json")
            for message in (self.refused(NODE_CONFIG_PATH=path), self.refused(json.dumps({"nodes": [wrong]}))):
                self.assertIn(said, message)
            self.assertIn("nodes.json", self.refused(NODE_CONFIG_PATH=path))
            self.assertIn("config.yaml", self.refused(json.dumps({"nodes": [wrong]})))

    def test_what_is_no_list_of_nodes(self) -> None:
        self.assertIn("nodes.json: line 1", self.refused(NODE_CONFIG_PATH=self.write("[", "nodes.json")))
        self.assertIn("list", self.refused(NODE_CONFIG_PATH=self.write("{}", "nodes.json")))
        self.assertIn("list", self.refused("nodes: {a: b}"))

    def test_two_nodes_at_one_place(self) -> None:
        self.assertIn("node a", self.refused(json.dumps({"nodes": [self.node("a"), self.node("b")]})))
        path = self.write(json.dumps([self.node("b")]), "nodes.json")
        message = self.refused(json.dumps({"nodes": [self.node("a")]}), NODE_CONFIG_PATH=path)
        self.assertIn("nodes.json: node b", message)
        self.assertIn("twice", self.refused(json.dumps({"nodes": [self.node("a"), self.node("a", 1)]})))


class UnknownKeyTests(ConfigTestCase):
    """An unknown key costs a warning; the network's own keys that dapi has no use for cost none."""

    def warnings(self, text: str, **environ: str) -> list[str]:
        return load_config(self.write(text), environ=environ)[1]

    def test_what_is_for_the_command_line_is_not_taken_for_a_setting(self) -> None:
        environ = {"DAPI_URL": "http://127.0.0.1:9200", "DAPI_ADMIN_TOKEN": "t", "DAPI_CA_FILE": "ca.pem"}
        self.assertEqual(load_config(environ=environ), (Config(), []))

    def test_a_misspelt_key_is_named_with_what_may_be_meant(self) -> None:
        (warning,) = self.warnings("api: {ml_sever_port: 1}")
        self.assertIn("api.ml_sever_port", warning)
        self.assertIn("config.yaml", warning)
        self.assertIn("is api.ml_server_port meant?", warning)
        (warning,) = self.warnings("", DAPI_CHAIN_NODE__URI="http://x")
        self.assertIn("DAPI_CHAIN_NODE__URI", warning)
        self.assertIn("chain_node.url", warning)

    def test_a_foreign_key_is_named_without_a_guess(self) -> None:
        (warning,) = self.warnings("zebra: {stripes: hunter2}")
        self.assertIn("zebra.stripes", warning)
        self.assertNotIn("meant", warning)
        self.assertNotIn("hunter2", warning)
        self.assertEqual(len(self.warnings("7: 8\n9: {}\n10: []")), 2)

    def test_the_networks_own_file_costs_one_line(self) -> None:
        text = """
        api: {port: 8080, public_url: "http://x", public_server_port: 9000, ml_server_port: 9101, test_mode: false,
              ml_grpc_server_port: 9300, ml_grpc_callback_address: "x:1"}
        chain_node: {url: "http://node:26657", is_genesis: false, seed_api_url: "http://seed", keyring_backend: test,
                     account_public_key: "", signer_key_name: ""}
        merged_node_config: true
        nats: {host: "0.0.0.0", port: 4222}
        ml_node_key_config: {worker_public: a, worker_private: b}
        upcoming_seed: {seed: 1, epoch_index: 2, signature: "", claimed: false}
        current_seed: {seed: 1}
        previous_seed: {seed: 1}
        current_height: 5
        last_processed_height: 5
        upgrade_plan: {name: "", height: 0, binaries: {"linux/amd64": x}, node_version: ""}
        current_node_version: v1
        last_used_version: v1
        validation_params: {timestamp_expiration: 1}
        bandwidth_params: {estimated_limits_per_block_kb: 1}
        """
        environ = {"DAPI_API__PUBLIC_URL": "http://x", "DAPI_CHAIN_NODE__P2P_URL": "tcp://x", "NODE_HOST": "x"}
        config, warnings = load_config(self.write(text), environ=environ)
        # In one line, not one for each.
        self.assertEqual(len(warnings), 1)
        self.assertEqual(config.api.ml_server_port, 9101)
        self.assertIsNone(config.chain_node.account_public_key)
        self.assertIsNone(config.chain_node.signer_key_name)


class LogLevelTests(ConfigTestCase):
    """Which levels can be set."""

    def test_levels_of_rooms(self) -> None:
        self.assertEqual(self.load("").log.level, "info")
        self.assertEqual(self.load("", DAPI_LOG__LEVEL="warn,chain=debug").log.level, "warn,chain=debug")

    def test_what_is_no_level(self) -> None:
        for text in ("verbose", "info,", "chain=debug", "info,kitchen=debug", "info,chain=loud"):
            said = self.refused("", DAPI_LOG__LEVEL=text)
            self.assertIn("log.level (environment DAPI_LOG__LEVEL)", said)
            self.assertIn("info,websocket=debug", said)


class SecretTests(ConfigTestCase):
    """A password is in no text that is made of the settings."""

    def test_has_no_text(self) -> None:
        config = self.load("", KEYRING_PASSWORD="hunter2")
        secret = config.chain_node.keyring_password
        assert secret is not None
        self.assertEqual(secret.reveal(), "hunter2")
        for text in (repr(config), str(config), repr(secret), str(secret), f"{secret}", f"{secret!r}"):
            self.assertNotIn("hunter2", text)
        self.assertNotEqual(secret, "hunter2")
        self.assertEqual(len({secret, Secret("hunter2"), Secret("other")}), 2)

    def test_is_in_no_error(self) -> None:
        for text in (
            "chain_node: {keyring_password: [hunter2]}",
            "chain_node: {keyring_password: {hunter2: hunter2}}",
            "chain_node:\n  keyring_password: *hunter2",
            "chain_node:\n  keyring_password: !hunter2 x",
            "chain_node:\n  keyring_password: 'hunter2\n",
            "chain_node:\n  keyring_password: hunter2: hunter2",
        ):
            self.assertNotIn("hunter2", self.refused(text))
        for key, value in (
            ("chain_node.url", "https://rpc.example/hunter2, http://b:26657"),
            ("api.poc_callback_url", "htp://user:hunter2@proxy:9100"),
        ):
            message = self.refused(**{f"DAPI_{key.upper().replace('.', '__')}": value})
            self.assertIn(key, message)
            self.assertIn("http://", message)
            self.assertNotIn("hunter2", message)
        self.assertIn("chain_node.keyring_password", self.refused("chain_node: {keyring_password: 12345}"))
        self.assertNotIn("12345", self.refused("chain_node: {keyring_password: 12345}"))
