"""Checks of PoC v2: the api container's three ports, the chain's commits, and the URL that the nodes are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from dapi.chain.rpc import ChainRpc
from dapi.cli.checks.local import database_path, is_in_use
from dapi.cli.checks.result import Check, failed, passed, skipped
from dapi.config import Config
from dapi.diagnosis.callbacks import fault_between
from dapi.errors import ChainError
from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.messages.printable import without_tokens
from dapi.messages.sizes import MIB
from dapi.messages.urls import parse_url, without_user
from dapi.relay.api_answers import ApiAnswerError, ApiNode, Epochs, read_start_time
from dapi.relay.api_client import ApiClient, ApiUnavailableError
from dapi.relay.chain_questions import ChainQuestions
from dapi.relay.prefix import has_prefix

_URL = "callback URL of PoC v2"
_SECONDS = 5.0


async def poc_v2_checks(reactor: Any, config: Config) -> list[Check]:
    """Try what the relay and the watch need; nothing where neither is set."""
    if not (config.poc_v2.relay or config.poc_v2.watch):
        return []
    urls = config.poc_v2
    client = ApiClient(
        reactor,
        callback_url=urls.api_url,
        public_url=urls.api_public_url,
        admin_url=urls.api_admin_url,
        ca_file=config.tls.ca_file,
    )
    try:
        checks, epochs, nodes = await _ask_container(client, config)
    finally:
        await client.close()
    checks.append(await _chain(reactor, config, epochs, nodes))
    if config.poc_v2.relay:
        checks += await _callback_url(reactor, config, nodes)
    return checks


async def _ask_container(client: ApiClient, config: Config) -> tuple[list[Check], Epochs | None, tuple[ApiNode, ...]]:
    checks: list[Check] = []
    names = config.poc_v2

    async def ask(what: str, setting: str, question: Callable[[], Awaitable[Any]], words: Callable[[Any], str]) -> Any:
        try:
            answer = await question()
        except ApiUnavailableError as error:
            to_do = f"look whether the api container runs, and poc_v2.{setting} is right"
            checks.append(failed(f"api container, {what}", str(error), to_do))
            return None
        checks.append(passed(f"api container, {what}", words(answer)))
        return answer

    await ask("callbacks", "api_url", client.start_time, lambda _: f"{names.api_url} answers")
    epochs = await ask(
        "epochs", "api_public_url", client.epochs, lambda found: f"block {found.block_height}, {found.phase}"
    )
    nodes = await ask(
        "nodes", "api_admin_url", client.nodes, lambda found: ", ".join(node.node_id for node in found) or "none yet"
    )
    if epochs is not None and (model := _model_of(nodes or ())) is not None:

        def counted(count: int | None) -> str:
            text = "nothing is stored yet, or it is not the open one" if count is None else f"{count} artifacts stored"
            return f"stage {epochs.newest}, {model}: {text}"

        await ask("state", "api_public_url", lambda: client.count(epochs.newest, model), counted)
    return checks, epochs, nodes or ()


def _model_of(nodes: tuple[ApiNode, ...]) -> str | None:
    return min((model for node in nodes for model in node.models), default=None)


async def _chain(reactor: Any, config: Config, epochs: Epochs | None, nodes: tuple[ApiNode, ...]) -> Check:
    name, url, participant = "commits", config.poc_v2.chain_url, config.poc_v2.participant
    if url is None or participant is None:
        text = "what is committed is not looked at, and a PoC challenge is not known"
        return skipped(name, text, "set poc_v2.chain_url and poc_v2.participant")
    if epochs is None or (model := _model_of(nodes)) is None:
        return skipped(name, "it is not known which stage and model to ask for")
    chain = ChainQuestions(reactor, ChainRpc(reactor, url.split(",")), participant)
    try:
        count = await chain.committed(epochs.newest, model)
    except ChainError as error:
        return failed(name, str(error), "look whether poc_v2.chain_url is an RPC node of the network")
    finally:
        await chain.close()
    return passed(name, f"the chain has {count} artifacts of stage {epochs.newest}, {model}, of {participant}")


async def _callback_url(reactor: Any, config: Config, nodes: tuple[ApiNode, ...]) -> list[Check]:
    """Check the URL that the api container is told, as far as dapi has it; it holds a secret, and is shown without."""
    url, path = config.api.poc_callback_url, database_path(config)
    if url is None:
        to_do = "set api.poc_callback_url (DAPI_API__POC_CALLBACK_URL) to what the api container is told"
        return [skipped(_URL, "dapi is not told it", to_do)]
    shown = without_tokens(without_user(url))
    if url.endswith("/"):
        return [failed(_URL, f"{shown} ends with a slash, which the nodes double", "leave the slash at its end out")]
    prefix_file = Path(f"{path}-relay.prefix")
    if not has_prefix(url):
        to_do = f"put what is in {prefix_file} at its end; dapi makes that file at its first start"
        return [failed(_URL, f"{shown} has no prefix, so dapi would refuse each callback", to_do)]
    host = parse_url(url).host
    far = [node.node_id for node in nodes if fault_between(host, node.host) is not None]
    if far:
        to_do = "tell the api container an address that the nodes reach"
        return [failed(_URL, f"{shown}: {far[0]} does not reach {host}, by its name", to_do)]
    if not is_in_use(path):
        return [skipped(_URL, "dapi does not run, so that nothing answers there", "try it again once dapi runs")]
    checks = [await _through_dapi(reactor, url, shown, config.tls.ca_file)]
    text = "only a node can tell whether it reaches dapi"
    to_do = f"in the node's container: curl {shown}/metrics, with the prefix, has to show the api container's metrics"
    return [*checks, skipped(f"{_URL}, from the nodes", text, to_do)]


async def _through_dapi(reactor: Any, url: str, shown: str, ca_file: str | None) -> Check:
    """Ask the container for its metrics the way that a callback takes."""
    exchanges = Exchanges(reactor, None, _SECONDS, ca_file=ca_file)
    asking = Deferred.fromCoroutine(exchanges.exchange("GET", f"{url}/metrics", None, max_bytes=4 * MIB))
    try:
        status, body = await asking
        if status == 403:
            return failed(_URL, f"{shown}: the prefix is another one", "tell the api container the one of the file")
        if status != 200:
            to_do = "look whether dapi's callback port is there, and the api container runs"
            return failed(_URL, f"{shown} answers with HTTP {status}", to_do)
        read_start_time(body)
    except (NoAnswerError, AnswerTooLongError) as error:
        return failed(_URL, f"{shown}: {error}", "look at its host and port, and at what forwards them to dapi")
    except ApiAnswerError:
        return failed(_URL, f"{shown} leads to something else than the api container", "look at poc_v2.api_url")
    finally:
        await exchanges.close()
    return passed(_URL, f"{shown} reaches dapi, and through it the api container, from this machine")
