"""A node of the configuration file that the database knows already."""

from __future__ import annotations

import msgspec
from twisted.logger import Logger

from dapi.broker.nodes import NodeConfig

# A token in the URL, keys among a model's arguments.
_MAY_HOLD_SECRETS = ("websocket_url", "models")


def log_differences(log: Logger, in_file: NodeConfig, stored: NodeConfig) -> None:
    """Log in which fields a node of the file differs from the stored one, and what to do; nothing when in none."""
    differences = [
        field
        if field in _MAY_HOLD_SECRETS
        else f"{field}: {_shown(stored, field)} in the database, {_shown(in_file, field)} in the file"
        for field in NodeConfig.__struct_fields__
        if getattr(stored, field) != getattr(in_file, field)
    ]
    if differences:
        log.warn(
            "{node_id}: the configuration file differs, and the database wins; to apply the file, POST the node "
            "to /admin/v1/nodes ({differences})",
            node_id=in_file.id,
            differences="; ".join(differences),
        )


def _shown(config: NodeConfig, field: str) -> str:
    return msgspec.json.encode(getattr(config, field)).decode()
