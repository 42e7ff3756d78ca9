"""What all commands share: their options, the way to dapi, what is printed, and how an error ends."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import click

from dapi.cli.errors import JSON_WANTED, CliError
from dapi.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from dapi.cli.admin_client import AdminClient

DEFAULT_URL = "http://127.0.0.1:9200"
_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/:@?#\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?")


class Session:
    """One run of ``dapi``: where its dapi is, and how to print.

    ``now`` tells the time in unix seconds, ``sleep`` waits for some seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        token_file: str | None = None,
        ca_file: str | None = None,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.now = now
        self.sleep = sleep
        self.url = url
        self.token_file = token_file
        self.ca_file = ca_file
        self._client: AdminClient | None = None

    @property
    def is_json(self) -> bool:
        """Whether JSON is to be printed."""
        return bool(click.get_current_context().meta.get(JSON_WANTED))

    @property
    def api(self) -> AdminClient:
        """The admin API of the dapi that is asked; raises CliError where URL or token cannot be used."""
        if self._client is None:
            from dapi.cli.admin_client import AdminClient

            url = self.url or os.environ.get("DAPI_URL") or DEFAULT_URL
            if _URL.fullmatch(url) is None:
                raise CliError(f"{url!r} is no URL of an admin API: give one like {DEFAULT_URL}", ExitCode.USAGE)
            self._client = AdminClient(url, self._token(), self.ca_file or os.environ.get("DAPI_CA_FILE") or None)
        return self._client

    def _token(self) -> str | None:
        if self.token_file is None:
            return os.environ.get("DAPI_ADMIN_TOKEN") or None
        try:
            token = Path(self.token_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise CliError(f"the token file {self.token_file} cannot be read: {reason}") from error
        if not token or not token.isprintable() or not token.isascii():
            raise CliError(f"the token file {self.token_file} does not hold a token: one line of ASCII is expected")
        return token

    def print_json(self, value: object) -> None:
        """Print a value as JSON, indented where a person reads it."""
        click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))

    def print_line(self, value: object) -> None:
        """Print a value as one line of JSON."""
        click.echo(json.dumps(value))


pass_session = click.make_pass_decorator(Session, ensure=True)


def _set_url(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).url = value


def _set_token_file(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).token_file = value


def _set_ca_file(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).ca_file = value


def _set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.meta[JSON_WANTED] = True


def _options(names: Iterable[str]) -> list[click.Parameter]:
    known = {
        "json": click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_set_json, is_eager=True, help="Print JSON."
        ),
        "url": click.Option(
            ["--url"],
            metavar="URL",
            expose_value=False,
            callback=_set_url,
            help=f"The admin API; else DAPI_URL, else {DEFAULT_URL}.",
        ),
        "token-file": click.Option(
            ["--token-file"],
            metavar="FILE",
            expose_value=False,
            callback=_set_token_file,
            help="A file with the token of the admin API; else DAPI_ADMIN_TOKEN.",
        ),
        "ca-file": click.Option(
            ["--ca-file"],
            metavar="FILE",
            expose_value=False,
            callback=_set_ca_file,
            help="Who signed the certificate of an https admin API, in PEM; else DAPI_CA_FILE, else the system's.",
        ),
    }
    return [known[name] for name in names]


class LocalCommand(click.Command):
    """A command that asks no dapi; it can print JSON. ``examples`` are shown at the end of its help."""

    common: tuple[str, ...] = ("json",)

    def __init__(self, *args: Any, examples: str = "", **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.params += _options(self.common)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in dedent(self.examples).strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class ApiCommand(LocalCommand):
    """A command that asks the admin API."""

    common = ("json", "url", "token-file", "ca-file")


class ApiGroup(click.Group):
    """A group of commands, by default such as ask the admin API."""

    command_class = ApiCommand
    group_class = type
