"""``dapi poc …``: proof of compute by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dapi.cli import show
from dapi.cli.errors import CliError
from dapi.cli.exit_codes import ExitCode
from dapi.cli.session import ApiGroup, Session, pass_session

F = TypeVar("F", bound=Callable[..., Any])

_LOOK_SECONDS = 1.0


@click.group(cls=ApiGroup)
def poc() -> None:
    """Give all enabled nodes a command by hand.

    Each waits until all nodes have done it, or failed; Ctrl-C ends the waiting and not the command. While dapi follows
    the chain's phases, it would undo this at the next block: each command needs --force then.
    """


_force = click.option("--force", is_flag=True, help="Also while dapi follows the chain's phases.")


def _stage(function: F) -> F:
    for option in (
        click.option("--public-key", required=True, metavar="HEX", help="The participant's public key."),
        click.option("--hash", "block_hash", required=True, metavar="HASH", help="The hash of that block, as it is."),
        click.option("--height", type=click.IntRange(0), required=True, help="The block that the stage starts at."),
    ):
        function = option(function)
    return function


@poc.command(
    "start",
    examples="""
    dapi poc start --height 1200 --hash 9F3A… --public-key 02ab…
    """,
)
@_stage
@_force
@pass_session
def start(session: Session, height: int, block_hash: str, public_key: str, force: bool) -> None:
    """Have the nodes generate for a stage."""
    _command(session, "start", force, {"block_height": height, "block_hash": block_hash, "public_key": public_key})


@poc.command(
    "validate",
    examples="""
    dapi poc validate --height 1200 --hash 9F3A… --public-key 02ab…
    """,
)
@_stage
@_force
@pass_session
def validate(session: Session, height: int, block_hash: str, public_key: str, force: bool) -> None:
    """Have the nodes validate for a stage."""
    _command(session, "validate", force, {"block_height": height, "block_hash": block_hash, "public_key": public_key})


@poc.command(
    "inference",
    examples="""
    dapi poc inference --force
    """,
)
@_force
@pass_session
def inference(session: Session, force: bool) -> None:
    """Have the nodes serve inference."""
    _command(session, "inference", force)


@poc.command(
    "stop",
    examples="""
    dapi poc stop --force
    """,
)
@_force
@pass_session
def stop(session: Session, force: bool) -> None:
    """Have the nodes stop."""
    _command(session, "stop", force)


@poc.command(
    "status",
    examples="""
    dapi poc status
    """,
)
@pass_session
def status(session: Session) -> None:
    """Say how far the last command by hand is."""
    _show(session, session.api.get("/poc"))


def _command(session: Session, verb: str, force: bool, body: dict[str, object] | None = None) -> None:
    try:
        answer = session.api.post(f"/poc/{verb}", body, force="true" if force else None)
    except CliError as error:
        raise CliError(error.message.replace("?force=true", "--force"), ExitCode(error.exit_code)) from None
    began_at, told = answer["progress"]["began_at"], ""
    while answer["progress"]["pending"]:
        if not session.is_json and (now := _so_far(answer["progress"])) != told:
            told = now
            click.echo(told, err=True)
        session.sleep(_LOOK_SECONDS)
        answer = session.api.get("/poc")
        if answer["progress"]["began_at"] != began_at:
            raise CliError("dapi was restarted, or the nodes got another command: nothing is known of this one")
    _show(session, answer)


def _show(session: Session, answer: dict[str, Any]) -> None:
    results, progress = answer["results"], answer["progress"]
    if session.is_json:
        session.print_json(answer)
    elif not progress["nodes"]:
        click.echo("no node is enabled")
    else:
        rows = [(name, _how(result), result["status"], result["error"]) for name, result in results.items()]
        if rows:
            show.print_all([show.table(("NODE", "DONE", "DOES", "ERROR"), rows)])
        click.echo(_so_far(progress))
    if progress["failed"]:
        click.get_current_context().exit(ExitCode.NO)


def _so_far(progress: dict[str, Any]) -> str:
    pending = f", {progress['pending']} go on" if progress["pending"] else ""
    done = f"{progress['succeeded']} do it, {progress['failed']} failed"
    return f"{progress['duty']}: of {progress['nodes']} nodes {done}{pending}"


def _how(result: dict[str, Any]) -> str:
    return "goes on" if result["succeeded"] is None else show.cell(result["succeeded"])
