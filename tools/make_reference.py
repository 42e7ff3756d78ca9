"""Write into ``docs/`` what it takes from the code: ``make reference``.

It stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. ``tests/unit/test_documents.py`` tells when it is
stale.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import msgspec

from dapi.cli.main import cli
from dapi.cli.session import LocalCommand
from dapi.config import settings
from dapi.config.loading import OPTIONS, VARIABLES, allowed
from dapi.messages.secret import Secret
from dapi.messages.sizes import MIB

# What docs/cli.md tells once for all commands.
_COMMON = {"--json", "--url", "--token-file", "--ca-file", "--help"}
_WIDTH = 100
DOCS = Path(__file__).resolve().parent.parent / "docs"


def texts_of_fields(type_: type[msgspec.Struct]) -> dict[str, str]:
    """Return the text that stands below each field of a struct, on one line."""
    body = getattr(ast.parse(inspect.getsource(type_)).body[0], "body", [])
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def default_text(value: Any) -> str:
    """Write a default as people write it into the file."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, int):
        for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB)):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed_text(type_: Any) -> str:
    return "a text" if Secret in getattr(type_, "__args__", ()) else allowed(type_).rstrip(",")


def settings_tables() -> Iterator[str]:
    """Return a chapter for each section of the settings."""
    others: dict[str, list[str]] = {"poc.network": ["`IS_TEST_NET`"]}
    for keys, form in ((VARIABLES, "`{}`"), (OPTIONS, "`--{}`")):
        for name, key in keys.items():
            others.setdefault(key, []).append(form.format(name))
    for section in msgspec.structs.fields(settings.Config):
        if section.name == "nodes":
            continue
        yield f"## {section.name}\n"
        yield f"{inspect.getdoc(section.type)}\n"
        yield "| setting | default | meaning | what is allowed |"
        yield "| --- | --- | --- | --- |"
        texts = texts_of_fields(section.type)
        for field in msgspec.structs.fields(section.type):
            key = f"{section.name}.{field.name}"
            names = ", ".join([f"`{key}`", *others.get(key, ())])
            # Without a text the test of the documents fails.
            text = texts.get(field.name, "")
            yield f"| {names} | {default_text(field.default)} | {text} | {_allowed_text(field.type)} |"
        yield ""


def commands(group: click.Group = cli, name: str = "dapi") -> Iterator[tuple[str, click.Command]]:
    """Return every command of the command line that is no group, by its whole name."""
    for part, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


def help_of(name: str, command: click.Command) -> Iterator[str]:
    """Return how a command is called, its own options, and its examples."""
    context = click.Context(command, info_name=name)
    formatter = click.HelpFormatter(width=_WIDTH)
    formatter.write(f"{name} {' '.join(command.collect_usage_pieces(context))}\n")
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    own = [each for each in options if set(each.opts).isdisjoint(_COMMON)]
    if records := [record for each in own if (record := each.get_help_record(context)) is not None]:
        with formatter.section("Options"):
            formatter.write_dl(records)
    if isinstance(command, LocalCommand):
        command.format_epilog(context, formatter)
    yield f"```\n{formatter.getvalue().rstrip()}\n```"


def parts() -> Iterator[tuple[str, str, Iterator[str]]]:
    """Return each part: the document that it stands in, its name, and its lines."""
    yield "settings.md", "settings", settings_tables()
    for name, command in commands():
        yield "cli.md", name, help_of(name, command)


def with_part(document: str, name: str, lines: Iterator[str]) -> str:
    """Return a document with this part made anew, which may also stand below a heading of its name.

    Raises ValueError where it has no place for the part.
    """
    made = "\n".join(lines).rstrip()
    if f"<!-- begin {name} -->" not in document:
        document = document.replace(f"\n## {name}\n", f"\n## {name}\n\n<!-- begin {name} -->\n<!-- end {name} -->\n")
    pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
    changed, count = re.subn(pattern, lambda found: f"{found[1]}\n{made}\n\n{found[2]}", document, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"a document needs '<!-- begin {name} -->' and '<!-- end {name} -->', once")
    return changed


def main() -> int:
    """Write all parts, and print the names of the documents that have changed."""
    for file, name, lines in parts():
        path = DOCS / file
        before = path.read_text(encoding="utf-8")
        after = with_part(before, name, lines)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"docs/{file}: {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
