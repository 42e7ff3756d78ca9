"""Settings: what can be set, under which names, and where each value came from.

Sources, each overriding the ones before it:

1. a YAML file (``--config`` or ``API_CONFIG_PATH``), with the names of the network's own ``config.yaml``;
2. environment variables ``DAPI_SECTION__NAME``, such as ``DAPI_API__ML_SERVER_PORT``;
3. the variables that the network's own software reads: ``KEY_NAME``, ``ACCOUNT_PUBKEY``, ``KEYRING_BACKEND``,
   ``KEYRING_PASSWORD``, ``IS_TEST_NET``;
4. command line options.

Nodes come from ``nodes:`` in the YAML file and from a list in the form of ``node-config.json`` (``--node-config`` or
``NODE_CONFIG_PATH``), which wins where both name a node. An empty variable, and a key without a value or with an empty
text, count as not set. A wrong value is a ConfigError that names the key, the value, its source and what is allowed; an
unknown key is a warning only.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import yaml
from msgspec import Meta, Struct

from dapi.broker.nodes import NodeConfig, check_all_apart, decode_node_configs
from dapi.database.service import DEFAULT_RESERVE_BYTES
from dapi.errors import ConfigError
from dapi.messages.secret import Secret as Secret
from dapi.messages.sizes import MIB
from dapi.messages.urls import parse_url
from dapi.network_config import is_of_the_network, unused
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.submission.settings import SubmitterSettings
from dapi.timing.log_levels import PATTERN as LOG_LEVELS_PATTERN

Port = Annotated[int, Meta(ge=0, le=65535, description="a port, 0 to 65535; 0 lets the system pick one")]
Seconds = Annotated[float, Meta(gt=0, le=86400, description="a number of seconds above 0, one day at most")]
Text = Annotated[str, Meta(min_length=1, description="a text")]
HttpUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://([^\s/@?#]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:@?#\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?\Z",
        description="a URL, http://… or https://…, without a query",
    ),
]
ChainUrls = Annotated[
    str,
    Meta(
        pattern=r"^(https?|tcp)://[^/\s,][^\s,]*(,(https?|tcp)://[^/\s,][^\s,]*)*\Z",
        description="an RPC URL, http://…:26657, or several separated by commas",
    ),
]
_HOST_NAMES = r"^ *[A-Za-z0-9._-]+( *, *[A-Za-z0-9._-]+)* *\Z"
HostNames = Annotated[str, Meta(pattern=_HOST_NAMES, description="host names without ports, separated by commas")]
# 33 bytes, the first of which is 2 or 3.
PublicKey = Annotated[
    str,
    Meta(pattern=r"^A[g-z0-9+/][A-Za-z0-9+/]{42}\Z", description="a compressed secp256k1 key, 33 bytes in base64"),
]
Count = Annotated[int, Meta(ge=1, description="a whole number above 0")]
TransactionBytes = Annotated[int, Meta(ge=10_000, le=740_000, description="10000 to 740000 bytes")]
StageBytes = Annotated[int, Meta(ge=MIB, description="a whole number of bytes, 1 MiB at least")]
TotalBytes = Annotated[int, Meta(ge=MIB, description="a whole number of bytes, 1 MiB at least")]
ReserveBytes = Annotated[int, Meta(ge=8 * MIB, description="a whole number of bytes, 8 MiB at least")]
MessageBytes = Annotated[int, Meta(ge=1024, description="a whole number of bytes, 1024 at least")]
LogLevels = Annotated[
    str,
    Meta(
        pattern=LOG_LEVELS_PATTERN,
        description="debug, info, warn, error or critical, perhaps with rooms of dapi after it, info,websocket=debug,",
    ),
]

# A default that a part of dapi has of its own is taken from there.
_SUBMITTER, _WEBSOCKET = SubmitterSettings(), WebSocketSettings()


class ApiConfig(Struct, frozen=True, kw_only=True):
    """The ports of dapi."""

    ml_server_host: Text = "0.0.0.0"  # noqa: S104 - ML nodes call from other machines
    ml_server_port: Port = 9100
    admin_server_host: Text = "127.0.0.1"
    admin_server_port: Port = 9200
    poc_callback_url: HttpUrl | None = None
    """The base under which ML nodes reach the callback port; None: that port on 127.0.0.1."""
    admin_token: Secret | None = None
    admin_token_file: Text | None = None
    """What the admin API asks for, or a file with it; needed where its host is no loopback address."""
    admin_hosts: HostNames | None = None
    """The names that the admin API is reached under, besides localhost and addresses."""
    callback_auth: Literal["required", "optional"] = "required"
    """Whether batches are taken only with the token that dapi tells each node, or also without one."""


class ChainNodeConfig(Struct, frozen=True, kw_only=True):
    """The chain and the key that signs for it. Without a url nothing is submitted.

    The first of several RPC URLs that answers is used. The key is the one in ``key_file``, if that is set, else
    ``signer_key_name`` in the keyring; ``account_public_key`` is the participant's where that is another one.
    """

    url: ChainUrls | None = None
    account_public_key: PublicKey | None = None
    signer_key_name: Text | None = None
    keyring_backend: Literal["file", "test"] = "file"
    keyring_dir: Text = "~/.inference"
    keyring_password: Secret | None = None
    key_file: Text | None = None
    """A file with the 32 bytes of the key in hex, which nobody else can read."""
    max_nonces_per_message: Count = _SUBMITTER.max_nonces
    """The chain's limit for one message: larger batches are sent in parts."""
    max_transaction_bytes: TransactionBytes = _SUBMITTER.max_transaction_bytes
    max_in_flight: Count = _SUBMITTER.max_in_flight
    """How many transactions wait for a block at once, at most."""
    max_in_flight_bytes: TotalBytes = _SUBMITTER.max_in_flight_bytes
    gas_limit: Count = _SUBMITTER.gas_limit
    """Of each transaction; a chain may allow less in one block."""
    max_stage_bytes: StageBytes = 4096 * MIB
    """What the chain may answer when it is asked for everybody's batches of a stage."""
    declare_nodes: bool = True
    """Declare the registered nodes on the chain: a node that is not declared counts nothing."""
    claim_rewards: bool = True
    """Claim what the chain owes for the epoch before."""


class StorageConfig(Struct, frozen=True, kw_only=True):
    """Where batches are kept until the chain has them."""

    path: Text = "~/.dapi/outbox.db"
    reserve_bytes: ReserveBytes = DEFAULT_RESERVE_BYTES
    """Kept occupied beside the database, and given back on a full disk, so that the outbox can be drained: what the
    write-ahead log holds, 4 MiB and the last commit, has to fit into the file then."""
    new_database: bool = False
    """Whether a new database takes the place of an empty file, which else stops the start."""


class WebSocketConfig(Struct, frozen=True, kw_only=True):
    """The connections to the ML nodes."""

    idle_seconds: Seconds = _WEBSOCKET.idle_seconds
    """A connection that brought no batch for this long, while its node should send, is replaced."""
    max_message_bytes: MessageBytes = _WEBSOCKET.max_message_bytes
    compression: bool = _WEBSOCKET.compression


class TlsConfig(Struct, frozen=True, kw_only=True):
    """How ML nodes that are reached over https and wss are checked."""

    ca_file: Text | None = _WEBSOCKET.ca_file
    """PEM file of the authorities that they are checked against; None: the system's."""


class PocConfig(Struct, frozen=True, kw_only=True):
    """How the nodes do their proof of compute."""

    network: Literal["main", "test"] = "main"
    """Whose model parameters an init carries."""
    follow_chain: bool = True
    """Whether the nodes follow the chain's phases, where a chain is configured; else the admin API commands them."""


class PocV2Config(Struct, frozen=True, kw_only=True):
    """A network with PoC v2: whether dapi relays callbacks, and the three ports of the network's own api container."""

    relay: bool = False
    api_url: HttpUrl = "http://api:9100"
    api_public_url: HttpUrl = "http://api:9000"
    api_admin_url: HttpUrl = "http://api:9200"
    watch: bool = False
    """Watch from beside what of each stage is stored and, where chain and participant are set, committed."""
    chain_url: ChainUrls | None = None
    participant: Text | None = None
    hold_suspects: bool = True
    """Hold callbacks with nonces or vectors that no node makes."""


class LogConfig(Struct, frozen=True, kw_only=True):
    """What twistd writes into the log."""

    format: Literal["text", "json"] = "text"
    """Whether a line is a text, or a JSON object."""
    level: LogLevels = "info"
    """The lowest level that is written, and the rooms that have another one."""


class Config(Struct, frozen=True, kw_only=True):
    """All settings; every one has a default."""

    api: ApiConfig = ApiConfig()
    chain_node: ChainNodeConfig = ChainNodeConfig()
    storage: StorageConfig = StorageConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    tls: TlsConfig = TlsConfig()
    poc: PocConfig = PocConfig()
    poc_v2: PocV2Config = PocV2Config()
    log: LogConfig = LogConfig()
    nodes: tuple[NodeConfig, ...] = ()


_SECTIONS: dict[str, type[Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name != "nodes"
}
_FIELDS = {
    f"{section}.{field.name}": field for section, type_ in _SECTIONS.items() for field in msgspec.structs.fields(type_)
}
_FORMER_NAMES = {"websocket.ca_file": "tls.ca_file"}
OPTIONS = {
    "callback-host": "api.ml_server_host",
    "callback-port": "api.ml_server_port",
    "callback-url": "api.poc_callback_url",
    "admin-host": "api.admin_server_host",
    "admin-port": "api.admin_server_port",
    "database": "storage.path",
    "new-database": "storage.new_database",
    "chain-url": "chain_node.url",
    "log-level": "log.level",
}
"""Which key a command line option sets."""
_VARIABLES = {
    "KEY_NAME": "chain_node.signer_key_name",
    "ACCOUNT_PUBKEY": "chain_node.account_public_key",
    "KEYRING_BACKEND": "chain_node.keyring_backend",
    "KEYRING_PASSWORD": "chain_node.keyring_password",
}


class _Setting(NamedTuple):
    """A value as it was found. ``is_text``: its source knows only text, so numbers are read from it."""

    value: Any
    source: str
    is_text: bool = True


def load_config(
    path: str | None = None,
    *,
    node_config_path: str | None = None,
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Config, list[str]]:
    """Read all sources and return the settings, and warnings for the log.

    ``path`` and ``node_config_path`` override ``API_CONFIG_PATH`` and ``NODE_CONFIG_PATH``; ``options`` come from the
    command line, by the names in OPTIONS; ``environ`` is empty where it is not given. Raises ConfigError.
    """
    environ = {name: value for name, value in (environ or {}).items() if value}
    path = path or environ.get("API_CONFIG_PATH")
    node_config_path = node_config_path or environ.get("NODE_CONFIG_PATH")
    tree = _read_yaml(path) if path else {}
    nodes = _decode_nodes(tree.pop("nodes", None) or [], str(path))
    settings = {key: _Setting(value, str(path), is_text=False) for key, value in _leaves(tree)}
    settings.update(_from_environment(environ))
    settings.update({OPTIONS[name]: _Setting(value, f"option --{name}") for name, value in (options or {}).items()})
    for old, new in _FORMER_NAMES.items():
        if old in settings:
            former = settings.pop(old)
            settings.setdefault(new, former)
    warnings = [warning for key, setting in settings.items() for warning in _warn_of_unknown(key, setting.source)]
    not_used = unused({key: _short_name(key, setting.source) for key, setting in settings.items()}, environ)
    warnings += [not_used] if not_used is not None else []
    if node_config_path:
        nodes |= _decode_nodes(_read_json(node_config_path), node_config_path)
        with _naming(node_config_path):
            check_all_apart(nodes.values())
    sections: dict[str, Any] = {name: _convert_section(name, type_, settings) for name, type_ in _SECTIONS.items()}
    return Config(**sections, nodes=tuple(nodes.values())), warnings


def _read_text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error


def _read_yaml(path: str) -> dict[str, Any]:
    text = _read_text(path)
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # Where, but not what: its own words quote the file, and there may be a password at that place.
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{path}:{where} is no valid YAML; a value with special characters needs quotes") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: has to be a mapping with sections such as api: and chain_node:")
    return tree


def _read_json(path: str) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: is no valid JSON: {error.msg}") from error


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the name of the source before the text of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _decode_nodes(value: object, source: str) -> dict[str, NodeConfig]:
    with _naming(source):
        return {config.id: config for config in decode_node_configs(value)}


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in _FIELDS:
            yield from _leaves(value, f"{key}.")
        elif value not in (None, ""):
            # The network's own files write what is not set as an empty text.
            yield key, value


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[str, _Setting]]:
    for name, value in environ.items():
        if name.startswith("DAPI_"):
            yield name.removeprefix("DAPI_").lower().replace("__", "."), _Setting(value, f"environment {name}")
    for name, key in _VARIABLES.items():
        if name in environ:
            yield key, _Setting(environ[name], f"environment {name}")
    if environ.get("IS_TEST_NET") == "true":
        yield "poc.network", _Setting("test", "environment IS_TEST_NET")


def _short_name(key: str, source: str) -> str:
    """Return the name under which a host finds a setting: that of the variable, or the key in the file."""
    return source.removeprefix("environment ") if source.startswith("environment ") else key


def _warn_of_unknown(key: str, source: str) -> Iterable[str]:
    if key in _FIELDS or is_of_the_network(key):
        return
    close = get_close_matches(key, _FIELDS, n=1, cutoff=0.8)
    yield f"{key} ({source}) is not known, and ignored" + (f"; is {close[0]} meant?" if close else "")


def _convert_section(name: str, type_: type[Struct], settings: Mapping[str, _Setting]) -> Struct:
    section = settings.get(name)
    if section is not None:
        raise ConfigError(f"{name} ({section.source}): is a section, and needs names below it")
    values = {}
    for field in msgspec.structs.fields(type_):
        key = f"{name}.{field.name}"
        if key in settings:
            values[field.name] = _convert(key, field.type, settings[key])
    return type_(**values)


def _convert(key: str, type_: Any, setting: _Setting) -> Any:
    parts = typing.get_args(type_)
    is_secret = Secret in parts
    try:
        value = msgspec.convert(setting.value, Text if is_secret else type_, strict=not setting.is_text)
        if HttpUrl in parts:
            parse_url(value)
    except (msgspec.ValidationError, ValueError):
        # A URL may hold a password or a token.
        said = "" if is_secret or HttpUrl in parts or ChainUrls in parts else f" is {setting.value!r}, which"
        raise ConfigError(f"{key} ({setting.source}){said} is not allowed: {_allowed(type_)} is needed") from None
    return Secret(value) if is_secret else value


def _allowed(type_: Any) -> str:
    for part in (type_, *typing.get_args(type_)):
        if typing.get_origin(part) is Annotated:
            return next(meta.description or "" for meta in part.__metadata__ if isinstance(meta, Meta))
        if typing.get_origin(part) is Literal:
            return "one of " + ", ".join(typing.get_args(part))
    return {bool: "true or false"}.get(type_, "a text")
