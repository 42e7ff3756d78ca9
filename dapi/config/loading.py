"""How settings are read from all their sources, and what is said of a wrong one.

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
from dapi.config.settings import ChainUrls, Config, HttpUrl, Text
from dapi.errors import ConfigError
from dapi.messages.secret import Secret
from dapi.messages.urls import parse_url
from dapi.network_config import is_of_the_network, unused

_SECTIONS: dict[str, type[Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name != "nodes"
}
_FIELDS = {
    f"{section}.{field.name}": field for section, type_ in _SECTIONS.items() for field in msgspec.structs.fields(type_)
}
FORMER_NAMES = {"websocket.ca_file": "tls.ca_file"}
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
VARIABLES = {
    "KEY_NAME": "chain_node.signer_key_name",
    "ACCOUNT_PUBKEY": "chain_node.account_public_key",
    "KEYRING_BACKEND": "chain_node.keyring_backend",
    "KEYRING_PASSWORD": "chain_node.keyring_password",
}
"""Which key a variable of the network's own software sets; and IS_TEST_NET, where it is true, ``poc.network``."""


# What the command line `dapi` reads, where the same environment is for both.
_OF_THE_COMMAND_LINE = frozenset({"DAPI_URL", "DAPI_ADMIN_TOKEN", "DAPI_CA_FILE"})


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
    for old, new in FORMER_NAMES.items():
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: is no JSON that can be read: it is nested too deeply, or a number is too long"
        ) from error


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
        if name.startswith("DAPI_") and name not in _OF_THE_COMMAND_LINE:
            yield name.removeprefix("DAPI_").lower().replace("__", "."), _Setting(value, f"environment {name}")
    for name, key in VARIABLES.items():
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
        raise ConfigError(f"{key} ({setting.source}){said} is not allowed: {allowed(type_)} is needed") from None
    return Secret(value) if is_secret else value


def allowed(type_: Any) -> str:
    """Say what a setting of this type may be."""
    for part in (type_, *typing.get_args(type_)):
        if typing.get_origin(part) is Annotated:
            return next(meta.description or "" for meta in part.__metadata__ if isinstance(meta, Meta))
        if typing.get_origin(part) is Literal:
            return "one of " + ", ".join(typing.get_args(part))
    return {bool: "true or false"}.get(type_, "a text")
