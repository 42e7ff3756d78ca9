"""``dapi backup`` and ``dapi restore``."""

from __future__ import annotations

import os
from typing import Any

import click

from dapi.cli import show
from dapi.cli.errors import CliError
from dapi.cli.session import ApiCommand, Session, pass_session

_LOOK_SECONDS = 0.2


@click.command(
    cls=ApiCommand,
    examples="""
    dapi backup /var/backups/dapi-$(date +%F).db
    """,
)
@click.argument("file", type=click.Path())
@pass_session
def backup(session: Session, file: str) -> None:
    """Copy the database into a new file, while dapi runs.

    dapi writes the file, where it runs: in a container, that is a path of the container. The copy has all that was
    acknowledged before it began. It has no key: keep a copy of the keyring, too.
    """
    status: dict[str, Any] = session.api.post("/backup", {"path": os.path.abspath(os.path.expanduser(file))})
    path, began_at = status["path"], status["began_at"]
    while status["state"] == "running":
        session.sleep(_LOOK_SECONDS)
        status = session.api.get("/backup")
        if (status["path"], status["began_at"]) != (path, began_at):
            raise CliError(f"dapi was restarted, or begins another copy: {path} may not be whole")
    if status["state"] != "done":
        raise CliError(f"{path} is not made: {status['problem']}")
    if session.is_json:
        session.print_json(status)
    else:
        click.echo(f"the database is copied into {show.cell(path)}, {show.size(status['bytes'])}")
