"""What is said of the settings of the network's own api container."""

from __future__ import annotations

from typing import ClassVar

from dapi.config import load_config
from tests.unit.config.test_loading import PUBLIC_KEY, ConfigTestCase


class NetworkConfigTests(ConfigTestCase):
    """What the network's own api container has settings for, and dapi has no use for, is named once."""

    # The environment of the service `api` in the network's compose file.
    COMPOSE: ClassVar[dict[str, str]] = {
        "KEY_NAME": "warm",
        "KEYRING_BACKEND": "file",
        "KEYRING_PASSWORD": "hunter2",
        "ACCOUNT_PUBKEY": PUBLIC_KEY,
        "CREATE_KEY": "false",
        "NODE_HOST": "node",
        "DAPI_API__POC_CALLBACK_URL": "http://api:9100",
        "DAPI_API__PUBLIC_URL": "http://203.0.113.7:8000",
        "DAPI_API__PUBLIC_SERVER_PORT": "9000",
        "DAPI_API__ML_SERVER_PORT": "9100",
        "DAPI_API__ADMIN_SERVER_PORT": "9200",
        "DAPI_API__ML_GRPC_SERVER_PORT": "9300",
        "DAPI_CHAIN_NODE__URL": "http://node:26657",
        "DAPI_CHAIN_NODE__SEED_API_URL": "http://seed:8000",
        "DAPI_CHAIN_NODE__P2P_URL": "tcp://node:26656",
    }

    def test_the_compose_environment_is_read_whole(self) -> None:
        config, (said,) = load_config(environ=self.COMPOSE)
        self.assertEqual((config.api.ml_server_port, config.chain_node.url), (9100, "http://node:26657"))
        unused = [name for name in self.COMPOSE if name in said]
        self.assertEqual(
            unused,
            [
                *("CREATE_KEY", "NODE_HOST", "DAPI_API__PUBLIC_URL", "DAPI_API__PUBLIC_SERVER_PORT"),
                *("DAPI_API__ML_GRPC_SERVER_PORT", "DAPI_CHAIN_NODE__SEED_API_URL", "DAPI_CHAIN_NODE__P2P_URL"),
            ],
        )
        self.assertIn("keep that container for the rest", said)
        self.assertIn("DAPI_API__PUBLIC_URL, DAPI_API__PUBLIC_SERVER_PORT: dapi has no public API", said)
        self.assertNotIn("hunter2", said)
        self.assertNotIn("203.0.113.7", said)

    def test_each_section_is_named_once(self) -> None:
        (said,) = load_config(self.write("current_seed: {seed: 1, epoch_index: 2}\nnats: {port: 4222}"))[1]
        self.assertIn("current_seed, nats: dapi has its own database", said)

    def test_a_variable_of_somebody_else_is_not_named(self) -> None:
        self.assertEqual(load_config(environ={"NODE_HOST": "x", "TESTS": "1"})[1], [])
