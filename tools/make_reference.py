"""Write into ``docs/`` what it takes from the code: ``make reference``.

It stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. ``tests/unit/test_documents.py`` tells when it is
stale.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from dapi.config import settings
from dapi.config.loading import OPTIONS, VARIABLES, allowed
from dapi.messages.secret import Secret
from dapi.messages.sizes import MIB

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


PARTS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {"settings": ("settings.md", settings_tables)}
"""Each part by its name: the document that it stands in, and what makes it."""


def with_part(document: str, name: str, lines: Iterator[str]) -> str:
    """Return a document with this part made anew. Raises ValueError where it has no place for the part."""
    made = "\n".join(lines).rstrip()
    pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
    changed, count = re.subn(pattern, lambda found: f"{found[1]}\n{made}\n\n{found[2]}", document, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"a document needs '<!-- begin {name} -->' and '<!-- end {name} -->', once")
    return changed


def main() -> int:
    """Write all parts, and print the names of the documents that have changed."""
    for name, (file, make) in PARTS.items():
        path = DOCS / file
        before = path.read_text(encoding="utf-8")
        after = with_part(before, name, make())
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"docs/{file}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
