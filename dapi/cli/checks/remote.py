"""Checks of the others: the chain's nodes, what the chain knows of the key, and the ML nodes."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from dapi.broker.nodes import NodeConfig
from dapi.chain.grants import grant_command, grants_of
from dapi.chain.keyring import SigningKey
from dapi.chain.queries import account_number
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import ChainStatus
from dapi.chain_service import load_key
from dapi.cli.checks.result import Check, failed, passed, skipped
from dapi.config import Config
from dapi.errors import ChainError, ChainRefusedError, ConfigError, DapiError, MLNodeError
from dapi.messages import Kind
from dapi.messages.addresses import address_of
from dapi.mlnode.client import MLNodeClient
from dapi.phases.epoch_queries import epoch_info
from dapi.submission.rows import TYPE_URLS
from dapi.timing.together import together

_LOOK = "look whether it runs, is the RPC port of a chain node (26657), and can be reached from here"
_STALE_SECONDS = 60.0
_CLOCK_SECONDS = 5.0
_GRANT_DAYS = 30
_DAY = 86_400
_NODES_AT_A_TIME = 20
_NODE_SECONDS = 15.0
_SECOND_NS = 1e9


async def chain_checks(reactor: Any, config: Config, known_chain: str | None) -> list[Check]:
    """Ask each chain node where it stands, and the first that answers what it knows of the key.

    ``known_chain`` is the id of the chain that the database is of, None while it is of none.
    """
    urls = (config.chain_node.url or "").split(",")
    if config.chain_node.url is None:
        return [
            skipped("chain", "no chain is configured: batches are kept, nothing is submitted", "set chain_node.url")
        ]
    checks, sound = [], []
    for url in urls:
        rpc = ChainRpc(reactor, [url])
        try:
            status = await rpc.status()
            checks.append(_chain_node(status))
            if checks[-1].result == "PASS":
                sound.append((url, status))
        except ChainError as error:
            name = f"chain node {rpc.nodes[0].name}"
            checks.append(failed(name, str(error), _LOOK))
        finally:
            await rpc.close()
    chains = {status.chain_id for _, status in sound}
    if len(chains) > 1:
        found = f"the chain nodes are of different chains: {', '.join(sorted(chains))}"
        checks.append(failed("chain", found, "take those of the wrong network out of chain_node.url"))
    if chains and known_chain is not None and known_chain not in chains:
        found = f"the database is of the chain {known_chain}, and the chain nodes are of {', '.join(sorted(chains))}"
        to_do = "set chain nodes of the right network: dapi would give up what it keeps for the chain of the database"
        checks.append(failed("chain of the database", found, to_do))
    if not sound:
        checks.append(skipped("account", "no chain node can be asked"))
        return checks
    rpc = ChainRpc(reactor, [sound[0][0]])
    try:
        return [*checks, _clock(sound[0][1]), await _version(rpc, config), *await _accounts(rpc, config)]
    finally:
        await rpc.close()


def _chain_node(status: ChainStatus) -> Check:
    name, age = f"chain node {status.node}", time.time() - status.block_time_ns / _SECOND_NS
    where = f"{status.chain_id}, block {status.height}, {age:.0f} s old"
    if status.catching_up:
        return failed(name, f"{where}: it is catching up", "wait until it has caught up, or set one that has")
    if age > _STALE_SECONDS:
        to_do = (
            "have the clock set by NTP (chrony, systemd-timesyncd); if it is right, look at the node, or set another"
        )
        return failed(name, f"{where}: it stands still, or this machine's clock is wrong", to_do)
    return passed(name, where)


def _clock(status: ChainStatus) -> Check:
    ahead = time.time() - status.block_time_ns / _SECOND_NS
    if ahead < -_CLOCK_SECONDS:
        found = f"this machine's clock is {-ahead:.0f} s behind the time of the latest block"
        return failed("clock", found, "have the clock set by NTP (chrony, systemd-timesyncd)")
    return passed("clock", "agrees with the time of the latest block, as far as that tells")


async def _version(rpc: ChainRpc, config: Config) -> Check:
    try:
        info = await epoch_info(rpc)
    except ChainError as error:
        return failed("phases", str(error), "set a chain node of the right network")
    if info.is_poc_v2:
        if config.poc_v2.relay:
            return passed("phases", f"epoch {info.index}, PoC v2: dapi relays its callbacks")
        to_do = "have dapi relay its callbacks: poc_v2.relay, docs/poc-v2.md"
        return failed("phases", "the network runs PoC v2: dapi keeps batches of v1, and sends none", to_do)
    situation = info.situation()
    return passed("phases", f"epoch {info.index}, {situation.phase}, {situation.blocks_left} blocks left")


async def _accounts(rpc: ChainRpc, config: Config) -> list[Check]:
    try:
        key = load_key(config.chain_node)
    except DapiError:
        return [skipped("account", "there is no key to ask for")]
    text = config.chain_node.account_public_key
    participant = address_of((base64.b64decode(text) if text is not None else key.public_key).hex())
    checks = [await _account(rpc, f"account {key.address}", key.address)]
    if participant == key.address:
        return [*checks, skipped("grants", "the key is the participant's: it needs none")]
    return [*checks, await _grants(rpc, config, key, participant)]


async def _account(rpc: ChainRpc, name: str, address: str) -> Check:
    try:
        return passed(name, f"the chain knows it, as number {await account_number(rpc, address)}")
    except ChainRefusedError:
        return failed(name, "the chain does not know it", f"send the smallest amount of coins to {address}")
    except ChainError as error:
        return failed(name, str(error), "look at the chain node")


async def _grants(rpc: ChainRpc, config: Config, key: SigningKey, participant: str) -> Check:
    try:
        grants = await grants_of(rpc, participant, key.address)
    except ChainError as error:
        return failed("grants", str(error), "look at the chain node")
    unused = {Kind.HARDWARE: not config.chain_node.declare_nodes, Kind.CLAIM: not config.chain_node.claim_rewards}
    now = time.time()
    wanted = {TYPE_URLS[kind] for kind in Kind if not unused.get(kind, False)}
    missing = sorted(url for url in wanted if url not in grants or (grants[url] or now + 1) <= now)
    to_do = f"the participant has to run: {grant_command(key.address)}"
    if missing:
        return failed("grants", f"{participant} does not grant {', '.join(missing)} to {key.address}", to_do)
    soonest = min((expiry for url, expiry in grants.items() if url in wanted and expiry), default=None)
    if soonest is not None and soonest - now < _GRANT_DAYS * _DAY:
        return failed("grants", f"a grant expires in {(soonest - now) / _DAY:.0f} days", to_do)
    return passed("grants", f"{participant} grants {key.address} all that dapi sends")


async def node_checks(reactor: Any, config: Config, nodes: Sequence[NodeConfig]) -> list[Check]:
    """Ask each ML node what it does."""
    if not nodes:
        return [skipped("nodes", "no node is configured", "set nodes, or register them: dapi node add")]

    async def ask(node: NodeConfig) -> Check:
        name = f"node {node.id}"
        try:
            access = node.access(config.tls.ca_file)._asdict()
            client = MLNodeClient(reactor, node.poc_url, node_id=node.id, total_timeout_seconds=_NODE_SECONDS, **access)
        except ConfigError as error:
            return failed(name, str(error), "mend the node's tls_ca_file")
        try:
            return passed(name, f"answers at {node.poc_url}: {await client.state()}")
        except MLNodeError as error:
            to_do = f"look whether the node runs, and answers at {node.poc_url}"
            if error.status == 404:
                to_do = f"look at its version and poc_port, which {node.poc_url} is made of"
            return failed(name, str(error), to_do)
        finally:
            await client.close()

    return await together([partial(ask, node) for node in nodes], at_once=_NODES_AT_A_TIME)
