"""How a command of ``dapi`` ends when it cannot do what it was asked."""

from __future__ import annotations

import json
import sys
from typing import IO, Any

import click

from dapi.cli.exit_codes import ExitCode

JSON_WANTED = "dapi.cli: JSON is wanted"
"""Under this key the context tells whether a command was asked for JSON."""


class CliError(click.ClickException):
    """Something that ends a command: what is wrong, and what to do; ``exit_code`` says which kind it is."""

    exit_code: int  # type: ignore[misc]  # of the class in click, of each error here

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)
        # When it is shown, the context is gone.
        context = click.get_current_context(silent=True)
        self._is_json = context is not None and bool(context.meta.get(JSON_WANTED))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error, as JSON where JSON was asked for."""
        if self._is_json:
            text = json.dumps({"error": self.message, "exit_code": int(self.exit_code)})
        else:
            text = f"dapi: {clean(self.message)}"
        click.echo(text, file=file or sys.stderr)


def clean(text: object) -> str:
    """Return a text from outside without what would move the cursor or change colours."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in str(text))
