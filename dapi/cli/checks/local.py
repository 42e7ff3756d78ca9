"""Checks of this machine: the key, the database and its disk, the ports, the callback URL, open files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import secrets
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dapi.broker.nodes import NodeConfig
from dapi.chain_service import load_key
from dapi.cli.checks.result import Check, failed, passed, skipped
from dapi.config import Config
from dapi.database.file import TO_DO_WHEN_LOST, TO_DO_WHEN_OF_ANOTHER_USER, open_to_read, why_lost
from dapi.database.restore import look_into
from dapi.diagnosis.doors import CERTIFICATE_DAYS
from dapi.errors import ConfigError, DapiError, NewerDatabaseError, StartError
from dapi.messages.printable import without_tokens
from dapi.messages.sizes import MIB
from dapi.messages.urls import ip_address_of, is_loopback, parse_url, without_user
from dapi.service.admin_token import admin_token
from dapi.service.assembly import without_callback_path
from dapi.service.server_tls import server_tls

_CONNECT_SECONDS = 3.0
_FILES_PER_NODE = 2
_OTHER_FILES = 200
# A larger database is not read whole: that would take minutes.
_CHECKED_BYTES = 1024 * MIB


def local_checks(config: Config) -> Iterator[Check]:
    """Yield the checks of this machine."""
    path = database_path(config)
    is_running, is_v2_alone = is_in_use(path), serves_poc_v2_alone(config)
    if not is_v2_alone:
        yield _key(config)
    yield from _database(config, path, is_running)
    yield _port("callback port", config.api.ml_server_host, config.api.ml_server_port, is_running)
    yield _port("admin port", config.api.admin_server_host, config.api.admin_server_port, is_running)
    yield _admin_token(config)
    yield from _certificate(config)
    if not is_v2_alone:
        yield from _callback_url(config, is_running)
    yield _open_files(config)


def database_path(config: Config) -> Path:
    """Return where the database is, or will be."""
    return Path(os.path.realpath(Path(config.storage.path).expanduser()))


def serves_poc_v2_alone(config: Config) -> bool:
    """Return whether dapi only relays or watches PoC v2: it has no chain and no node of its own, and needs none."""
    return (config.poc_v2.relay or config.poc_v2.watch) and config.chain_node.url is None and not config.nodes


def is_in_use(path: Path) -> bool:
    """Return whether a dapi has the database open; makes no file."""
    with contextlib.suppress(OSError):
        lock = os.open(f"{path}.lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False


def known_nodes(config: Config) -> list[NodeConfig]:
    """Return the nodes that dapi works with: those of the settings, and those of the database, which wins."""
    nodes = {node.id: node for node in config.nodes}
    for node_id, text, is_left_alone in _rows(config, "SELECT id, config, removed OR NOT enabled FROM nodes"):
        nodes.pop(node_id, None)
        # One that cannot be read is told by dapi itself.
        with contextlib.suppress(msgspec.MsgspecError):
            if not is_left_alone:
                nodes[node_id] = msgspec.json.decode(text, type=NodeConfig)
    return list(nodes.values())


def known_chain(config: Config) -> str | None:
    """Return the id of the chain that the database is of; None when it is of none yet, or cannot be read."""
    return next((str(chain_id) for (chain_id,) in _rows(config, "SELECT id FROM chain")), None)


def _rows(config: Config, statement: str) -> list[tuple[Any, ...]]:
    """Return what the database answers; nothing where there is none, or it cannot be read."""
    path = database_path(config)
    # Unlike Path.exists, this does not fail in a folder that this user may not enter.
    if os.path.exists(path):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(open_to_read(path)) as connection:
            return connection.execute(statement).fetchall()
    return []


def _key(config: Config) -> Check:
    if config.chain_node.url is None:
        return skipped("key", "no chain is configured, so nothing is signed", "set chain_node.url and a key")
    try:
        return passed("key", f"signs for {load_key(config.chain_node).address}")
    except DapiError as error:
        of_keyring = "chain_node.signer_key_name, keyring_dir and KEYRING_PASSWORD"
        where = of_keyring if config.chain_node.key_file is None else "chain_node.key_file"
        return failed("key", str(error), f"look at {where}")


def _database(config: Config, path: Path, is_running: bool) -> Iterator[Check]:
    # Unlike Path.exists, this does not fail in a folder that this user may not enter.
    folder = next(each for each in path.parents if os.path.exists(each))
    if not os.access(folder, os.W_OK | os.X_OK):
        yield failed("database", f"{folder} cannot be written by this user", "set storage.path, or change its owner")
    elif is_running:
        yield skipped("database", f"a dapi uses {path} now")
    elif (closed := _closed_file(path)) is not None:
        yield failed("database", f"{closed} cannot be read and written by this user", TO_DO_WHEN_OF_ANOTHER_USER)
    elif (lost := why_lost(path)) is not None and not config.storage.new_database:
        yield failed("database", f"{path} {lost}", TO_DO_WHEN_LOST)
    elif lost is not None or not path.exists():
        yield passed("database", f"{path} will be made")
    else:
        yield _look_into(path)
    free, wanted = shutil.disk_usage(folder).free, 2 * config.storage.reserve_bytes
    if free < wanted:
        text = f"{free // MIB} MiB are free in {folder}"
        yield failed("disk", text, f"have {wanted // MIB} MiB free at least: with less, dapi takes no batches")
    else:
        yield passed("disk", f"{free // MIB} MiB are free in {folder}")


def _closed_file(path: Path) -> Path | None:
    """Return a file of the database that this user may not use, such as one that root has made."""
    files = (Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", ".lock", ".reserve", ".secret"))
    return next((each for each in files if each.exists() and not os.access(each, os.R_OK | os.W_OK)), None)


def _look_into(path: Path) -> Check:
    if path.stat().st_size > _CHECKED_BYTES:
        return skipped("database", f"{path} is larger than {_CHECKED_BYTES // MIB} MiB, and is not read whole")
    try:
        found = look_into(path, is_copy=False)
    except StartError as error:
        to_do = "restore it from a back-up (dapi restore)"
        if isinstance(error, NewerDatabaseError):
            to_do = "install that version again, or restore a back-up from before the upgrade"
        return failed("database", str(error), to_do)
    counts = ", ".join(f"{number} {state}" for state, number in found.batches.items()) or "no batches"
    return passed("database", f"{path} is whole: {counts}")


def _port(name: str, host: str, port: int, is_running: bool) -> Check:
    if port == 0:
        return passed(name, "the system chooses one")
    problem = _why_not_free(host, port)
    if problem is None:
        return passed(name, f"{host}:{port} is free")
    if is_running:
        return skipped(name, f"{host}:{port} is in use, and a dapi runs here")
    return failed(name, f"{host}:{port}: {problem}", "stop the program that has it, or set another port or address")


def _why_not_free(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
            tried.listen(1)
        except OSError as error:
            return "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
    return None


def _admin_token(config: Config) -> Check:
    try:
        token = admin_token(config.api)
    except ConfigError as error:
        return failed("admin API", str(error), "set api.admin_token, or bind it to 127.0.0.1")
    return passed("admin API", "asks for a token" if token else "asks for no token, and is on this machine only")


def _certificate(config: Config) -> Iterator[Check]:
    from twisted.internet import reactor

    name, renew = "certificate", "renew the files of tls.certificate and tls.key"
    try:
        tls = server_tls(reactor, config, for_nodes=True)
    except ConfigError as error:
        yield failed(name, str(error), "mend what is named: dapi does not start with it")
        return
    if tls is None:
        return
    days = tls.status().days_left
    if days <= 0:
        yield failed(name, f"{config.tls.certificate} ended {-days:.1f} days ago", renew)
    elif days <= CERTIFICATE_DAYS:
        yield failed(name, f"{config.tls.certificate} ends in {days:.1f} days", renew)
    else:
        yield passed(name, f"{config.tls.certificate} fits its key, and ends in {days:.0f} days")


def _callback_url(config: Config, is_running: bool) -> Iterator[Check]:
    name, url = "callback URL", config.api.poc_callback_url
    far = [node.id for node in config.nodes if not is_loopback(parse_url(node.poc_url).host)]
    if url is None:
        if far:
            text = f"none is set, and {len(far)} nodes, such as {far[0]}, are not on this machine"
            yield failed(name, text, "set api.poc_callback_url to where the nodes reach this machine")
        else:
            yield passed(name, "none is set, and all nodes are on this machine")
        return
    parts, shown = parse_url(url), without_tokens(without_user(url))
    if is_loopback(parts.host) and far:
        text = f"{shown}: for {far[0]}, which is not on this machine, {parts.host} is the node itself"
        yield failed(name, text, "set api.poc_callback_url to where the nodes reach this machine")
        return
    try:
        socket.getaddrinfo(parts.host, parts.port, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"{shown}: the name is not found here: {error.strerror}"
        yield failed(name, text, "use a name that the nodes find, or an address")
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    yield _reached_from_here(name, config, parts.host, port, shown, is_running)
    if ip_address_of(parts.host) is None and "." not in parts.host and parts.host != "localhost":
        text = f"{parts.host} looks like the name of a compose service, which only containers of its network find"
        yield skipped("callback URL, name", text, "use an address, unless the nodes are in the same network")
    base = without_callback_path(shown)
    yield skipped(
        "callback URL, from the nodes",
        "only a node can tell whether it reaches this machine",
        f"once dapi runs: dapi node test ID; or on the node: curl -i {base}/healthz (200 is right)",
    )


def _reached_from_here(name: str, config: Config, host: str, port: int, shown: str, is_running: bool) -> Check:
    """Try whether the URL leads to the callback port: a word that is sent there has to arrive."""
    here = (config.api.ml_server_host, config.api.ml_server_port)
    not_here = "whether the nodes reach it from where they are is another matter"
    if is_running:
        try:
            socket.create_connection((host, port), _CONNECT_SECONDS).close()
        except OSError as error:
            return skipped(name, f"{shown} is not reached from this machine itself ({error}); {not_here}")
        return passed(name, f"something answers at {shown}, from this machine")
    if here[1] == 0 or _why_not_free(*here) is not None:
        return skipped(name, "the callback port is not free, so that it cannot be tried")
    if _arrives(here, (host, port)):
        return passed(name, f"{shown} leads to the callback port, from this machine")
    text = f"{shown} does not lead to port {here[1]} from this machine itself; {not_here}"
    return skipped(name, text, "look at the port of the URL, and at what forwards it")


def _arrives(here: tuple[str, int], there: tuple[str, int]) -> bool:
    word = secrets.token_bytes(16)
    arrived = threading.Event()
    family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
    with socket.create_server(here, family=family) as server:
        server.settimeout(_CONNECT_SECONDS)

        def take() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(_CONNECT_SECONDS)
                    if connection.recv(len(word), socket.MSG_WAITALL) == word:
                        arrived.set()

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        with contextlib.suppress(OSError), socket.create_connection(there, _CONNECT_SECONDS) as connection:
            connection.sendall(word)
        taking.join()
    return arrived.is_set()


def _open_files(config: Config) -> Check:
    # twistd dapi raises the soft limit to this.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(config.nodes) * _FILES_PER_NODE + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"{len(config.nodes)} nodes may need {needed} open files, and {hard} are allowed"
        return failed("open files", text, "raise the limit: ulimit -n, LimitNOFILE= or ulimits:")
    return passed("open files", f"as many as {len(config.nodes)} nodes need are allowed")
