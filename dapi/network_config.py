"""What the configuration of the network's own api container has and dapi does not use, and what that means for a host.

dapi replaces the proof of compute in that container, and nothing else. Source of the names: docs/protocol/chain.md,
'Settings of the Go API'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class _Use(NamedTuple):
    """What the api container needs some names for. A key with a final dot stands for its whole section."""

    meaning: str
    keys: tuple[str, ...]
    variables: tuple[str, ...] = ()


_USES = (
    _Use(
        "dapi has no public API and serves no inference requests",
        ("api.public_url", "api.public_server_port", "api.port"),
    ),
    _Use(
        "dapi joins no network, registers no participant and makes no key",
        ("chain_node.seed_api_url", "chain_node.p2p_url", "chain_node.is_genesis"),
        ("CREATE_KEY", "NODE_HOST"),
    ),
    _Use(
        "dapi has no gRPC for ML nodes, which report by HTTP and WebSocket",
        ("api.ml_grpc_server_port", "api.ml_grpc_callback_address", "ml_node_key_config."),
    ),
    _Use(
        "dapi has its own database (storage.path) and reads neither the container's nodes nor its state",
        (
            *("merged_node_config", "upcoming_seed.", "current_seed.", "previous_seed.", "current_height", "nats."),
            *("last_processed_height", "upgrade_plan.", "current_node_version", "last_used_version"),
            *("validation_params.", "bandwidth_params."),
        ),
        ("API_SQLITE_PATH",),
    ),
    _Use("dapi has no test mode", ("api.test_mode",), ("TESTS",)),
)
# Where none of these is set, a variable such as NODE_HOST is somebody else's.
_SIGNS = ("KEY_NAME", "ACCOUNT_PUBKEY", "KEYRING_BACKEND", "CREATE_KEY", "API_CONFIG_PATH", "NODE_CONFIG_PATH")


def is_of_the_network(key: str) -> bool:
    """Tell whether the api container has a use for a key that dapi does not know."""
    return any(_is_in(key, use) for use in _USES)


def unused(keys: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """Say in one line which settings of the api container are set that dapi does not use, and what that means.

    ``keys`` has each key that is set, with the name under which it was found; ``environ`` is the environment. None:
    there are none. No value is told.
    """
    is_host = any(name in _SIGNS or name.startswith("DAPI_") for name in environ)
    parts = []
    for use in _USES:
        # Of a section its name is enough.
        found = [name if key in use.keys else key.partition(".")[0] for key, name in keys.items() if _is_in(key, use)]
        found += [name for name in use.variables if is_host and name in environ]
        if found:
            parts.append(f"{', '.join(dict.fromkeys(found))}: {use.meaning}")
    if not parts:
        return None
    return (
        "dapi replaces only the proof of compute of the network's api container: keep that container for the rest. "
        f"It does not use {'; '.join(parts)}"
    )


def _is_in(key: str, use: _Use) -> bool:
    return key in use.keys or any(key.startswith(name) for name in use.keys if name.endswith("."))
