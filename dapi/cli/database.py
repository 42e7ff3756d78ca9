"""``dapi backup`` and ``dapi restore``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dapi.cli import show
from dapi.cli.errors import CliError
from dapi.cli.session import ApiCommand, LocalCommand, Session, pass_session

if TYPE_CHECKING:
    from dapi.database.restore import FoundDatabase

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


@click.command(
    cls=LocalCommand,
    examples="""
    dapi restore /var/backups/dapi.db
    dapi restore /var/backups/dapi.db --config config.yaml --yes
    """,
)
@click.argument("file", type=click.Path())
@click.option("--config", "-c", metavar="FILE", help="The YAML file with dapi's settings; else API_CONFIG_PATH.")
@click.option("--database", "-d", metavar="FILE", help="The database to replace; else what the settings say.")
@click.option("--yes", is_flag=True, help="Do not ask before.")
@pass_session
def restore(session: Session, file: str, config: str | None, database: str | None, yes: bool) -> None:
    """Put a copy in the place of the database, while dapi is stopped.

    The database that is there is moved aside, not deleted. What dapi acknowledged after the copy was made is only in
    that one: the nodes do not deliver it again.
    """
    from dapi.config import load_config
    from dapi.database.restore import look_into
    from dapi.database.restore import restore as put_in_place
    from dapi.errors import DapiError

    try:
        options = {"database": database} if database else {}
        settings, _ = load_config(config, options=options, environ=os.environ)
        path = Path(settings.storage.path).expanduser().absolute()
        copy = Path(file).expanduser().absolute()
        found = look_into(copy)
        if not yes:
            _ask(copy, found, path)
        before = put_in_place(copy, path)
    except DapiError as error:
        raise CliError(str(error)) from error
    if session.is_json:
        moved_to = str(before) if before is not None else None
        session.print_json({"restored": str(path), "from": str(copy), "moved_to": moved_to, "batches": found.batches})
        return
    click.echo(f"{path} is the copy now: {_batches(found)}")
    if before is not None:
        click.echo(f"what was there before is {before}")
    click.echo("start dapi again")


def _ask(copy: Path, found: FoundDatabase, path: Path) -> None:
    click.echo(f"{copy}: {show.size(found.size)}, {_batches(found)}, chain {show.cell(found.chain_id)}", err=True)
    if not click.confirm(f"Put it in the place of {path}?", err=True):
        raise CliError("nothing was done")


def _batches(found: FoundDatabase) -> str:
    return ", ".join(f"{number} {show.cell(state)}" for state, number in found.batches.items()) or "no batches"
