"""Nodes: how an operator configures one, how dapi registers it, and where both are stored."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec
from twisted.internet.defer import Deferred

from dapi.database import Database
from dapi.errors import ConfigError, UnknownNodeError
from dapi.http.endpoints import trust_root_of
from dapi.http.headers_file import HeadersFile
from dapi.messages.field_errors import field_and_reason
from dapi.messages.urls import ip_address_of, parse_url
from dapi.poc.websocket_url import websocket_address

Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# Host, PoC port and PoC segment.
Address: TypeAlias = tuple[str, int, str]

_NUMS_OF_TOKENS = "token_num, old_token_num, old_stage"
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class Access(NamedTuple):
    """How a node is asked, besides its URLs: what Exchanges and ConnectionSettings have under these names."""

    ca_file: str | None
    fingerprint: str | None
    headers: HeadersFile | None


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a node serves a model: the arguments that it starts it with, behind those that the network has for it.

    One whose key is among the network's is left out (docs/protocol/chain.md, 'Arguments of models').
    """

    args: tuple[str, ...] = ()


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node is made of."""

    type: str
    count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an operator configures a node, in the fields of ``node-config.json``.

    ``host`` is a name or an address, with or without ``http://`` or ``https://``. dapi does not use ``max_concurrent``.
    Some fields are dapi's own: ``version`` is the prefix that a node's proxy wants before ``poc_segment``;
    ``websocket_url`` is a full ws or wss URL, for a node whose WebSocket has another address than its HTTP API.
    An https node is checked against the authorities in ``tls_ca_file``, if that is set, or has to show the certificate
    whose SHA-256 is ``tls_fingerprint``. What is in ``headers_file`` goes along with each request, see HeadersFile.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    host: Annotated[str, msgspec.Meta(min_length=1)]
    inference_port: Port
    poc_port: Port
    models: Annotated[dict[str, ModelConfig], msgspec.Meta(min_length=1)]
    max_concurrent: Annotated[int, msgspec.Meta(ge=1)] = 500
    inference_segment: str = ""
    poc_segment: str = ""
    hardware: tuple[Hardware, ...] = ()
    version: str = ""
    websocket_url: str = ""
    tls_ca_file: str = ""
    tls_fingerprint: str = ""
    headers_file: str = ""

    @property
    def poc_url(self) -> str:
        """The base of the node's HTTP API: ``scheme://host:poc_port[/version][poc_segment]``."""
        scheme, host = _scheme_and_host(self.host)
        return f"{scheme}://{host}:{self.poc_port}{_prefix(self.version)}{_prefix(self.poc_segment)}"

    @property
    def inference_url(self) -> str:
        """The base that the node serves inference at: ``scheme://host:inference_port[/version][inference_segment]``."""
        scheme, host = _scheme_and_host(self.host)
        return f"{scheme}://{host}:{self.inference_port}{_prefix(self.version)}{_prefix(self.inference_segment)}"

    def access(self, ca_file: str | None) -> Access:
        """Return how the node is asked; ``ca_file`` has the authorities where the node has none of its own."""
        headers = HeadersFile(self.headers_file) if self.headers_file else None
        return Access(self.tls_ca_file or ca_file, self.tls_fingerprint or None, headers)

    @property
    def address(self) -> Address:
        """What no two nodes may share: host, PoC port and, where a proxy tells nodes apart by it, PoC segment."""
        return _scheme_and_host(self.host)[1].lower(), self.poc_port, _prefix(self.poc_segment)


class Node(msgspec.Struct, frozen=True):
    """A registered node: its configuration, its number, and whether it is to work.

    The number is what the node writes into its batches; it is given once, and never to another node. ``token_num``
    tells which of the node's callback tokens is the right one. Until another stage than ``old_stage`` begins, the node
    is still told ``old_token_num`` (None: no other; 0: the base without a token, as before there were any): a node
    whose base changes in the middle of a stage begins its proof of work anew.
    """

    config: NodeConfig
    num: int
    enabled: bool = True
    token_num: int = 1
    old_token_num: int | None = None
    old_stage: int = -1

    @property
    def id(self) -> str:
        """The node's name, which the chain gets to know."""
        return self.config.id

    @property
    def told_token_num(self) -> int:
        """The token in the base that the node is told now; 0 for none."""
        return self.token_num if self.old_token_num is None else self.old_token_num

    def keeps_old_token_until(self, stage: int) -> bool:
        """Tell whether the node has an old token, which ends when this stage begins."""
        return self.old_token_num is not None and self.old_stage != stage

    def is_reached_like(self, other: Node) -> bool:
        """Tell whether another one has the same addresses, and is asked in the same way."""
        return self._reach == other._reach

    @property
    def _reach(self) -> tuple[str, ...]:
        config = self.config
        return self.poc_url, self.websocket_base, config.tls_ca_file, config.tls_fingerprint, config.headers_file

    def takes_token(self, token_num: int) -> bool:
        """Tell whether this token of the node is right now; 0 stands for none."""
        return token_num in (self.token_num, self.old_token_num)

    @property
    def poc_url(self) -> str:
        """The base of the node's HTTP API."""
        return self.config.poc_url

    @property
    def websocket_base(self) -> str:
        """The operator's URL of the node's WebSocket, or else the base of its HTTP API."""
        return self.config.websocket_url or self.config.poc_url


def decode_node_config(value: object) -> NodeConfig:
    """Make a NodeConfig of a decoded JSON or YAML object; raise ConfigError, naming the node and the field.

    A field ``node_num`` is ignored, so that a node as the admin API shows it can be given back to the admin API.
    """
    if isinstance(value, dict):
        value = {name: field for name, field in value.items() if name != "node_num"}
    name = value.get("id") if isinstance(value, dict) else None
    where = f"node {name}" if isinstance(name, str) and name else "node"
    try:
        config = msgspec.convert(value, NodeConfig)
    except msgspec.ValidationError as error:
        field, reason = field_and_reason(error, unknown="is not a field of a node")
        field = field.removeprefix("$").removeprefix(".")
        raise ConfigError(f"{where}: {field}: {reason}" if field else f"{where}: {reason}") from error
    _check(config, where)
    return config


def decode_node_configs(value: object) -> list[NodeConfig]:
    """Make NodeConfigs of a decoded list, as in ``node-config.json``; raise ConfigError at the first bad one."""
    if not isinstance(value, list):
        raise ConfigError("nodes: expected a list of nodes")
    configs = [decode_node_config(each) for each in value]
    check_all_apart(configs)
    ids: set[str] = set()
    for config in configs:
        if config.id in ids:
            raise ConfigError(f"node {config.id}: id: is in the list twice")
        ids.add(config.id)
    return configs


def check_all_apart(configs: Iterable[NodeConfig]) -> None:
    """Raise ConfigError when two nodes have the same address."""
    by_address: dict[Address, NodeConfig] = {}
    for config in configs:
        check_apart(config, by_address.setdefault(config.address, config))


def check_apart(config: NodeConfig, other: NodeConfig) -> None:
    """Raise ConfigError when two nodes have the same address."""
    if config.id != other.id and config.address == other.address:
        raise ConfigError(f"node {config.id}: host, poc_port: {config.host}:{config.poc_port} is node {other.id}'s")


def _check(config: NodeConfig, where: str) -> None:
    if config.id.strip() != config.id or not config.id.isprintable():
        raise ConfigError(f"{where}: id: must not begin or end with blanks or hold control characters")
    if "/" in config.id:
        # The id is a part of the admin API's paths.
        raise ConfigError(f"{where}: id: must not hold a slash")
    scheme, host = _scheme_and_host(config.host)
    if scheme not in ("http", "https"):
        raise ConfigError(f"{where}: host: {scheme}:// is not http:// or https://")
    if not _HOST_NAME.fullmatch(host):
        raise ConfigError(
            f"{where}: host: is no host name or address; a port belongs into poc_port, a path into poc_segment"
        )
    for field in ("version", "poc_segment", "inference_segment"):
        segment = getattr(config, field)
        if not re.fullmatch(r"[A-Za-z0-9._~/%+-]*", segment):
            raise ConfigError(f"{where}: {field}: {segment!r} is no part of a path")
    # Before it is stored: a worker that cannot be made would keep the nodes after it in the file from theirs.
    for field, ca_file, fingerprint in (
        ("tls_ca_file", config.tls_ca_file or None, None),
        ("tls_fingerprint", None, config.tls_fingerprint or None),
    ):
        try:
            trust_root_of(ca_file, fingerprint)
        except ConfigError as error:
            raise ConfigError(f"{where}: {field}: {error}") from error
    _check_urls(config, where)


def _check_urls(config: NodeConfig, where: str) -> None:
    if config.websocket_url and not _is_full_websocket_url(config.websocket_url):
        raise ConfigError(f"{where}: websocket_url: must be a full ws:// or wss:// URL, with its path")
    for field, url in (("host", config.poc_url), ("websocket_url", config.websocket_url or config.poc_url)):
        try:
            websocket_address(url)
        except ConfigError as error:
            raise ConfigError(f"{where}: {field}: {error}") from error


def _is_full_websocket_url(text: str) -> bool:
    try:
        url = parse_url(text)
    except ValueError:
        return False
    return url.scheme in ("ws", "wss") and any(url.path)


def _scheme_and_host(text: str) -> tuple[str, str]:
    scheme, found, host = text.rpartition("://")
    host = host.rstrip("/")
    if ":" in host and isinstance(ip_address_of(host), IPv6Address):
        host = f"[{host}]"
    return (scheme.lower() if found else "http"), host


def _prefix(segment: str) -> str:
    stripped = segment.strip("/")
    return f"/{stripped}" if stripped else ""


class StoredNodes(msgspec.Struct, frozen=True):
    """What the database holds: the registered nodes, by number, and the highest number ever given (0: none).

    ``removed``: ids of nodes that were removed; ``unreadable``: ids of nodes whose configuration is of another
    version or damaged, with what is wrong with it. ``node_counts``: those of the latest stages, by height.
    """

    nodes: list[Node]
    highest_num: int
    removed: frozenset[str]
    unreadable: dict[str, str]
    node_counts: dict[int, int]


class NodeStore:
    """Keeps nodes in the database.

    Numbers are given from 1 in the order of registration and kept for good: removing a node leaves its row, so that
    its number goes to nobody else, and the same id registered again gets it back.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> Deferred[StoredNodes]:
        """Fire with all that is stored. Fails with StoreError."""
        return self._database.read(_load)

    def save(self, config: NodeConfig) -> Deferred[Node]:
        """Register a node (enabled), or change the one that has this id; fires when on disk. Fails with StoreError."""
        return self.save_all([config]).addCallback(lambda nodes: nodes[0])

    def save_all(self, configs: Sequence[NodeConfig]) -> Deferred[list[Node]]:
        """Save all, in their order, with one commit; fires when all are on disk. Fails with StoreError."""
        return self._database.write(lambda connection: _save_all(connection, configs))

    def set_enabled(self, node_id: str, enabled: bool) -> Deferred[None]:
        """Enable or disable a node; fires when on disk. Fails with UnknownNodeError or StoreError."""
        return self._database.write(lambda connection: _set(connection, "enabled", enabled, node_id))

    def remove(self, node_id: str) -> Deferred[None]:
        """Remove a node; fires when on disk. Fails with UnknownNodeError or StoreError."""
        return self._database.write(lambda connection: _set(connection, "removed", True, node_id))

    def rotate_token(self, node_id: str, stage: int | None) -> Deferred[TokenNums]:
        """Give a node its next token; it is told the old one until another stage than ``stage`` begins.

        None stands for the latest stage that is stored. Fires when on disk. Fails with UnknownNodeError or StoreError.
        """
        return self._database.write(lambda connection: _rotate_token(connection, node_id, stage))

    def end_old_tokens(self, stage: int) -> Deferred[None]:
        """End the old tokens of all nodes but those that keep them in this stage; fires when on disk."""
        return self._database.write(lambda connection: _end_old_tokens(connection, stage))


class TokenNums(NamedTuple):
    """The columns of a node that tell of its tokens; see Node."""

    token_num: int
    old_token_num: int | None
    old_stage: int


def _load(connection: sqlite3.Connection) -> StoredNodes:
    nodes: list[Node] = []
    removed: set[str] = set()
    unreadable: dict[str, str] = {}
    highest_num = 0
    for num, node_id, config, is_enabled, is_removed, *tokens in connection.execute(
        f"SELECT num, id, config, enabled, removed, {_NUMS_OF_TOKENS} FROM nodes ORDER BY num"
    ):
        highest_num = num
        if is_removed:
            removed.add(node_id)
            continue
        try:
            nodes.append(Node(decode_node_config(msgspec.json.decode(config)), num, bool(is_enabled), *tokens))
        except (msgspec.MsgspecError, ConfigError) as error:
            unreadable[node_id] = str(error)
    latest = connection.execute("SELECT height, node_count FROM stages ORDER BY height DESC LIMIT 8")
    return StoredNodes(nodes, highest_num, frozenset(removed), unreadable, dict(latest))


def _save_all(connection: sqlite3.Connection, configs: Sequence[NodeConfig]) -> list[Node]:
    # Two statements, however many nodes there are: the thread waits for the interpreter's lock at each.
    connection.execute(
        "INSERT INTO nodes (num, id, config, enabled, removed)"
        " SELECT (SELECT COALESCE(MAX(num), 0) FROM nodes) + 1 + key, json_extract(value, '$.id'), value, 1, 0"
        " FROM json_each(?) WHERE true ORDER BY key"
        " ON CONFLICT (id) DO UPDATE SET config = excluded.config, removed = 0, enabled = enabled OR removed",
        (msgspec.json.encode(configs).decode(),),
    )
    [(stored,)] = connection.execute(
        f"SELECT json_group_object(id, json_array(num, enabled, json_array({_NUMS_OF_TOKENS}))) FROM nodes"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode([config.id for config in configs]).decode(),),
    )
    saved = msgspec.json.decode(stored, type=dict[str, tuple[int, int, TokenNums]])
    return [
        Node(config, num, bool(is_enabled), *tokens)
        for config, (num, is_enabled, tokens) in ((config, saved[config.id]) for config in configs)
    ]


def _rotate_token(connection: sqlite3.Connection, node_id: str, stage: int | None) -> TokenNums:
    # A token that was rotated twice in a stage was never told to the node: the first one stays.
    found = connection.execute(
        "UPDATE nodes SET token_num = token_num + 1, old_token_num = coalesce(old_token_num, token_num), old_stage ="
        " iif(old_token_num IS NULL, coalesce(?1, (SELECT max(height) FROM stages), -1), old_stage)"
        f" WHERE id = ?2 AND removed = 0 RETURNING {_NUMS_OF_TOKENS}",
        (stage, node_id),
    ).fetchall()
    if not found:
        raise UnknownNodeError(f"no node has the id {node_id!r}")
    return TokenNums(*found[0])


def _end_old_tokens(connection: sqlite3.Connection, stage: int) -> None:
    connection.execute(
        "UPDATE nodes SET old_token_num = NULL WHERE old_token_num IS NOT NULL AND old_stage != ?", (stage,)
    )


def _set(connection: sqlite3.Connection, column: Literal["enabled", "removed"], value: bool, node_id: str) -> None:
    statement = f"UPDATE nodes SET {column} = ? WHERE id = ? AND removed = 0"
    if not connection.execute(statement, (value, node_id)).rowcount:
        raise UnknownNodeError(f"no node has the id {node_id!r}")
