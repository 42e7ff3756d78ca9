"""``dapi nodes`` and ``dapi node …``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dapi.cli import show
from dapi.cli.admin_client import segment
from dapi.cli.completion import complete_node_id
from dapi.cli.errors import CliError
from dapi.cli.exit_codes import ExitCode
from dapi.cli.session import ApiCommand, ApiGroup, Session, pass_session
from dapi.cli.status import nodes_table

F = TypeVar("F", bound=Callable[..., Any])

_LOOK_SECONDS = 0.5
_ENDS = {"cut_short": "been cut short"}
_HIDDEN = "?(hidden)"
_FIELDS = ("host", "poc_port", "inference_port", "max_concurrent", "poc_segment", "inference_segment")
_OWN_FIELDS = ("version", "websocket_url", "tls_ca_file", "tls_fingerprint", "headers_file")


@click.command(
    cls=ApiCommand,
    examples="""
    dapi nodes
    dapi nodes --json | jq -r '.[].node.id'
    """,
)
@pass_session
def nodes(session: Session) -> None:
    """List the nodes, their WebSockets and their batches."""
    found = session.api.get("/nodes")
    if session.is_json:
        session.print_json(found)
    elif not found:
        click.echo("no node is registered: dapi node add --help")
    else:
        show.print_all([nodes_table([(each["node"], each["state"]) for each in found], session.now())])


@click.group(cls=ApiGroup)
def node() -> None:
    """Add, change, remove, enable, disable or test one node, and more."""


def _node_id(function: F) -> F:
    return click.argument("node_id", metavar="ID", shell_complete=complete_node_id)(function)


def _fields(function: F) -> F:
    """Give a command an option for each field of a node."""
    for option in (
        click.option("--version", metavar="PREFIX", help="What its proxy wants before the PoC segment."),
        click.option("--websocket-url", metavar="URL", help="Where its WebSocket is, if not at its PoC URL."),
        click.option("--tls-ca-file", metavar="FILE", help="Who signed its certificate, in PEM, if not known to dapi."),
        click.option("--tls-fingerprint", metavar="SHA256", help="The SHA-256 of the certificate that it has to show."),
        click.option("--headers-file", metavar="FILE", help="Headers for the proxy before it, on the machine of dapi."),
        click.option("--inference-segment", metavar="PATH", help="What its proxy wants before inference paths."),
        click.option("--poc-segment", metavar="PATH", help="What its proxy wants before PoC paths."),
        click.option("--max-concurrent", type=int, metavar="N", help="Its requests at a time; dapi does not use it."),
        click.option("--hardware", multiple=True, metavar="TYPE:COUNT", help="What it is made of; may be repeated."),
        click.option(
            "--model", multiple=True, metavar="'NAME [ARG …]'", help="A model and its arguments; repeat for more."
        ),
        click.option("--inference-port", type=int, metavar="PORT", help="The port of its inference."),
        click.option("--poc-port", type=int, metavar="PORT", help="The port of its PoC API."),
        click.option("--host", metavar="HOST", help="Its host name or address, perhaps with http:// or https://."),
    ):
        function = option(function)
    return function


def _changes(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a node that were given, as ``node-config.json`` has them."""
    changes = {name: given[name] for name in (*_FIELDS, *_OWN_FIELDS) if given.get(name) is not None}
    if given["model"]:
        models = [shlex.split(text) for text in given["model"]]
        if not all(models):
            raise click.UsageError("--model: give the name of a model, and its arguments after it")
        changes["models"] = {name: {"args": arguments} for name, *arguments in models}
    if given["hardware"]:
        changes["hardware"] = [_hardware(text) for text in given["hardware"]]
    return changes


def _hardware(text: str) -> dict[str, object]:
    kind, _, number = text.rpartition(":")
    if not kind or not number.isdecimal():
        raise click.UsageError(f"--hardware: {text!r} is not TYPE:COUNT, as in 'NVIDIA H100:8'")
    return {"type": kind, "count": int(number)}


@node.command(
    "add",
    examples=r"""
    dapi node add node1 --host 10.0.0.7 --poc-port 8080 --inference-port 5000 \
        --model 'Qwen/QwQ-32B --tensor-parallel-size 4'
    dapi node add --file node-config.json
    """,
)
@click.argument("node_id", metavar="[ID]", required=False)
@click.option("--file", "path", type=click.Path(), help="A JSON file with a node, or a list of nodes.")
@_fields
@pass_session
def add(session: Session, /, node_id: str | None, path: str | None, **given: Any) -> None:
    """Register a node, with immediate effect; or all of a file.

    A node of this id must not be registered yet: `dapi node set` changes one.
    """
    if (node_id is None) == (path is None):
        raise click.UsageError("give the ID of a node and its fields, or --file")
    if path is not None:
        _add_file(session, path)
        return
    fields = _changes(given)
    if any(each["node"]["id"] == node_id for each in session.api.get("/nodes")):
        raise CliError(f"{node_id} is registered already: `dapi node set {node_id}` changes it")
    _tell(session, session.api.post("/nodes", {"id": node_id, **fields}), "registered")


def _add_file(session: Session, path: str) -> None:
    try:
        value = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CliError(f"{path} is no JSON: {error}") from error
    answer = session.api.post("/nodes/batch", value if isinstance(value, list) else [value])
    if session.is_json:
        session.print_json(answer)
    else:
        for added in answer["nodes"]:
            click.echo(f"{show.cell(added['id'])} is registered, number {added['node_num']}")
        for refused in answer["errors"]:
            click.echo(f"not registered: {show.cell(refused['error'])}", err=True)
    if answer["errors"]:
        click.get_current_context().exit(ExitCode.REFUSED)


@node.command(
    "set",
    examples="""
    dapi node set node1 --host 10.0.0.9
    dapi node set node1 --poc-port 8081 --model 'Qwen/QwQ-32B --tp 8'
    """,
)
@_node_id
@_fields
@pass_session
def set_(session: Session, /, node_id: str, **given: Any) -> None:
    """Change fields of a node, with immediate effect; all others stay."""
    changes = _changes(given)
    if not changes:
        raise click.UsageError("give what is to be changed, such as --host")
    config = _config(session, node_id)
    if str(config["websocket_url"]).endswith(_HIDDEN) and "websocket_url" not in changes:
        raise CliError(
            f"the WebSocket URL of {node_id} holds a secret, which dapi does not show: give --websocket-url, too"
        )
    _tell(session, session.api.put(f"/nodes/{segment(node_id)}", {**config, **changes}), "changed")


def _config(session: Session, node_id: str) -> dict[str, Any]:
    for each in session.api.get("/nodes"):
        if each["node"]["id"] == node_id:
            found: dict[str, Any] = each["node"]
            return found
    raise CliError(f"no node has the id {node_id!r}: `dapi nodes` lists them")


def _tell(session: Session, config: dict[str, Any], what: str) -> None:
    if session.is_json:
        session.print_json(config)
        return
    click.echo(
        f"{show.cell(config['id'])} is {what}: number {config['node_num']}, {show.cell(config['host'])}, "
        f"PoC port {config['poc_port']}, inference port {config['inference_port']}"
    )


@node.command(
    "remove",
    examples="""
    dapi node remove node1
    """,
)
@_node_id
@click.option("--yes", is_flag=True, help="Do not ask before.")
@pass_session
def remove(session: Session, node_id: str, yes: bool) -> None:
    """Remove a node: what it still delivers is refused from now on."""
    if not yes and not click.confirm(f"Remove {node_id}?", err=True):
        raise CliError("nothing was done")
    session.api.delete(f"/nodes/{segment(node_id)}")
    if session.is_json:
        session.print_json({"node_id": node_id, "removed": True})
    else:
        click.echo(f"{node_id} is removed")


@node.command(
    "enable",
    examples="""
    dapi node enable node1
    """,
)
@_node_id
@pass_session
def enable(session: Session, node_id: str) -> None:
    """Let a node take part again."""
    _say(session, node_id, "enable", "is enabled")


@node.command(
    "disable",
    examples="""
    dapi node disable node1
    """,
)
@_node_id
@pass_session
def disable(session: Session, node_id: str) -> None:
    """Stop a node, and leave it alone from now on."""
    _say(session, node_id, "disable", "is disabled")


@node.command(
    "connect",
    examples="""
    dapi node connect node1
    """,
)
@_node_id
@pass_session
def connect(session: Session, node_id: str) -> None:
    """Try the WebSocket of a node at once, where it waits for its next try."""
    _say(session, node_id, "connect", "is asked for its WebSocket at once")


@node.command(
    "rotate",
    examples="""
    dapi node rotate node1
    """,
)
@_node_id
@pass_session
def rotate(session: Session, node_id: str) -> None:
    """Give a node another callback token, when the next stage begins."""
    _say(session, node_id, "rotate", "gets another callback token when the next stage begins")


@node.command(
    "test",
    examples="""
    dapi node test node1
    dapi node test node1 --json | jq .nonces_per_second
    """,
)
@_node_id
@pass_session
def test(session: Session, node_id: str) -> None:
    """Rehearse PoC on a node, off the chain.

    Does it generate, and do its batches come, both ways?
    It takes a minute or some, and dapi refuses it near a PoC. The node is interrupted in what it does, and brought back
    to it afterwards. None of the batches is kept. The exit code is 3 when a step has failed.
    """
    path = f"/nodes/{segment(node_id)}/test"
    status = session.api.post(path)
    began_at, shown = status["began_at"], 0
    while True:
        if not session.is_json:
            show.print_all([line for step in status["steps"][shown:] for line in _step_lines(step)])
            shown = len(status["steps"])
        if status["state"] != "running":
            break
        session.sleep(_LOOK_SECONDS)
        status = session.api.get(path)
        if status["began_at"] != began_at:
            raise CliError(f"dapi was restarted, or tests {node_id} anew: this test is over")
    if session.is_json:
        session.print_json(status)
    else:
        click.echo(f"{node_id}: the test has {_ENDS.get(status['state'], status['state'])}")
    if status["state"] != "passed":
        click.get_current_context().exit(ExitCode.NO)


def _step_lines(step: dict[str, Any]) -> list[Any]:
    from rich.padding import Padding
    from rich.text import Text

    line = Text(f"{step['result']:<8}", style=show.COLOURS.get(step["result"], ""))
    line.append(f"{show.cell(step['name'])}, {step['seconds']:.1f} s", style="bold")
    texts = [show.cell(step["found"])] + ([f"to do: {show.cell(step['to_do'])}"] if step["to_do"] else [])
    return [line, *(Padding(Text(text), (0, 0, 0, 8), expand=False) for text in texts)]


def _say(session: Session, node_id: str, verb: str, done: str) -> None:
    answer = session.api.post(f"/nodes/{segment(node_id)}/{verb}")
    if session.is_json:
        session.print_json(answer)
    else:
        click.echo(f"{node_id} {done}")
