"""``dapi logs``: what a running dapi writes into its log."""

from __future__ import annotations

import click

from dapi.cli import show
from dapi.cli.session import ApiCommand, Session, pass_session


@click.command(
    cls=ApiCommand,
    examples="""
    dapi logs
    dapi logs --level info,websocket=debug
    """,
)
@click.option("--level", metavar="LEVELS", help="What is written from now on, until the next start of dapi.")
@pass_session
def logs(session: Session, level: str | None) -> None:
    """Show which levels the log has, or change them while dapi runs.

    LEVELS is debug, info, warn, error or critical, perhaps with rooms of dapi after it.
    """
    found = session.api.get("/log") if level is None else session.api.put("/log", {"level": level})
    if session.is_json:
        session.print_json(found)
        return
    differs = f"; the next start begins with {show.cell(found['configured'])}"
    click.echo(f"the log has {show.cell(found['level'])}{differs if found['level'] != found['configured'] else ''}")
