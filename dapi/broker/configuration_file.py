"""The nodes of the configuration file: which are registered, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec
from twisted.logger import Logger

from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Address, NodeConfig, check_apart
from dapi.errors import ConfigError

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


def missing_nodes(
    log: Logger,
    configs: Iterable[NodeConfig],
    worker_of: Callable[[str], NodeWorker | None],
    removed: Collection[str],
    check_address: Callable[[NodeConfig], None],
) -> list[NodeConfig]:
    """Return those of the file's nodes that are to be registered, and log what keeps the others from it.

    ``worker_of`` returns the worker of the node with an id, ``check_address`` raises ConfigError when another node has
    the address of a new one.
    """
    missing: dict[Address, NodeConfig] = {}
    for config in configs:
        worker = worker_of(config.id)
        if worker is not None:
            log_differences(log, config, worker.node.config)
        elif config.id in removed:
            log.warn(
                "{node_id}: in the configuration file, but it was removed and stays so; to have it back, "
                "POST it to /admin/v1/nodes",
                node_id=config.id,
            )
        else:
            try:
                check_address(config)
                check_apart(config, missing.setdefault(config.address, config))
            except ConfigError as error:
                log.warn("{node_id}: not registered: {error}", node_id=config.id, error=str(error))
    return list(missing.values())
