"""``dapi check``: everything that can be tried without starting dapi."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dapi.cli import show
from dapi.cli.exit_codes import ExitCode
from dapi.cli.session import LocalCommand, Session, pass_session

if TYPE_CHECKING:
    from dapi.cli.checks.result import Check


@click.command(
    cls=LocalCommand,
    examples="""
    dapi check
    dapi check --config config.yaml --node-config node-config.json
    """,
)
@click.option("--config", "-c", metavar="FILE", help="The YAML file with dapi's settings; else API_CONFIG_PATH.")
@click.option("--node-config", metavar="FILE", help="The list of ML nodes; else NODE_CONFIG_PATH.")
@click.option("--database", "-d", metavar="FILE", help="The database; else what the settings say.")
@pass_session
def check(session: Session, config: str | None, node_config: str | None, database: str | None) -> None:
    """Try all that can be tried before dapi is started, or beside it: settings, key, chain, disk, ports, nodes.

    It changes nothing, and reads the same settings and environment as `twistd dapi`. The exit code is 3 when a check
    has failed.
    """
    checks = _all_checks(config, node_config, {"database": database} if database else {})
    failures = sum(each.result == "FAIL" for each in checks)
    if session.is_json:
        session.print_json({"checks": [asdict(each) for each in checks], "failed": failures})
    else:
        show.print_all(_lines(checks))
        click.echo(f"{failures} of {len(checks)} checks failed" if failures else "no check failed")
    if failures:
        click.get_current_context().exit(ExitCode.NO)


def _all_checks(path: str | None, node_config: str | None, options: dict[str, str]) -> list[Check]:
    from dapi.cli.checks.local import known_chain, known_nodes, local_checks, serves_poc_v2_alone
    from dapi.cli.checks.poc_v2 import poc_v2_checks
    from dapi.cli.checks.remote import chain_checks, node_checks
    from dapi.cli.checks.result import failed, passed
    from dapi.config import load_config
    from dapi.errors import ConfigError

    try:
        config, warnings = load_config(path, node_config_path=node_config, options=options, environ=os.environ)
    except ConfigError as error:
        return [failed("settings", str(error), "change it; all other checks need the settings")]
    checks = [passed("settings", "; ".join(["they can be used", *warnings])), *local_checks(config)]

    async def ask_the_others(reactor: Any) -> None:
        is_v2_alone = serves_poc_v2_alone(config)
        if not is_v2_alone:
            checks.extend(await chain_checks(reactor, config, known_chain(config)))
        checks.extend(await poc_v2_checks(reactor, config))
        nodes = known_nodes(config)
        if nodes or not is_v2_alone:
            checks.extend(await node_checks(reactor, config, nodes))

    _run(ask_the_others)
    return checks


def _run(work: Any) -> None:
    """Run a coroutine on Twisted's reactor, which is started for it."""
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.python.failure import Failure

    failures: list[Failure] = []
    try:
        react(lambda reactor: Deferred.fromCoroutine(work(reactor)).addErrback(failures.append))
    except SystemExit as end:
        if end.code:
            raise
    if failures:
        failures[0].raiseException()


def _lines(checks: list[Check]) -> list[Any]:
    from rich.padding import Padding
    from rich.text import Text

    lines: list[Any] = []
    for each in checks:
        line = Text(f"{each.result:<8}", style=show.COLOURS[each.result])
        line.append(f"{show.cell(each.name)}", style="bold")
        lines += [line, Padding(Text(show.cell(each.found)), (0, 0, 0, 8), expand=False)]
        if each.to_do is not None:
            lines.append(Padding(Text(f"to do: {show.cell(each.to_do)}"), (0, 0, 0, 8), expand=False))
    return lines
