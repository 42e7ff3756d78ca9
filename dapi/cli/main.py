"""The console script: the group of all commands."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from dapi import __version__
from dapi.cli.batches import batch, batches, export, retry
from dapi.cli.check import check
from dapi.cli.completion import completion
from dapi.cli.database import backup, restore
from dapi.cli.exit_codes import ExitCode
from dapi.cli.logs import logs
from dapi.cli.nodes import node, nodes
from dapi.cli.poc import poc
from dapi.cli.session import ApiGroup, Session
from dapi.cli.status import epochs, restart_advice, status

_EPILOG = "Exit codes: 0 done, 1 refused, 2 wrong command line, 3 the answer is no, 4 no dapi answers."


@click.group(cls=ApiGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dapi")
@click.pass_context
def cli(context: click.Context) -> None:
    """Look at a running dapi, and tell it what to do.

    The service itself is started with `twistd dapi`. Each command has --help with examples, and --json.
    """
    context.ensure_object(Session)


_COMMANDS = (
    *(status, nodes, node, batches, batch, retry, export, epochs, restart_advice, poc),
    *(check, backup, restore, logs, completion),
)
for command in _COMMANDS:
    cli.add_command(command)


def run() -> NoReturn:
    """Run the command line of this process, and end with its exit code."""
    try:
        code = cli.main(prog_name="dapi", standalone_mode=False)
    except click.exceptions.Abort:
        code = ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    sys.exit(int(code or 0))
