"""Make the reference of the HTTP API for the documents, of what ``GET /openapi.json`` of both ports answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from dapi.server.openapi import Operations, document
from dapi.server.operations import ADMIN, CALLBACKS

_PORTS: tuple[tuple[str, Operations], ...] = (("admin port", ADMIN), ("callback port", CALLBACKS))


def reference() -> str:
    """Return the document in Markdown: each route of both ports, and each type that they speak of."""
    described = [(port, document(port, operations)) for port, operations in _PORTS]
    types: dict[str, Any] = {}
    for _, each in described:
        types.update(each["components"]["schemas"])
    lines = [
        "# Reference of the HTTP API",
        "",
        "Each route of both ports, with what it takes and what it answers. [http-api.md](http-api.md) tells more.",
        "A request that is refused is answered with an [ErrorAnswer](#erroranswer).",
        "",
    ]
    for port, whole in described:
        lines += [f"## The {port}", ""]
        for path, methods in whole["paths"].items():
            for method, operation in methods.items():
                # What both ports have would be the same heading twice.
                of_port = f" ({port})" if sum(path in each["paths"] for _, each in described) > 1 else ""
                lines += _operation(f"{method.upper()} {path}{of_port}", operation)
    lines += ["## Types", ""]
    for name, schema in sorted(types.items()):
        lines += _type(name, schema)
    return "\n".join(lines)


def _operation(heading: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"### {heading}", "", _sentence(operation["summary"]), "")
    if parameters := [each for each in operation.get("parameters", ()) if each["in"] == "query"]:
        yield from ("| argument | what it may be |", "| --- | --- |")
        for each in parameters:
            yield f"| `{each['name']}` | {type_text(each['schema'])}{', required' if each['required'] else ''} |"
        yield ""
    if "requestBody" in operation:
        yield from (f"Body: {_content(operation['requestBody'])}", "")
    for code, answer in operation["responses"].items():
        if code.isdecimal() and not _is_error(answer):
            yield from (f"{code} {HTTPStatus(int(code)).phrase}: {_content(answer)}", "")


def _is_error(answer: Mapping[str, Any]) -> bool:
    contents = answer.get("content", {}).values()
    return any(each["schema"].get("$ref", "").endswith("/ErrorAnswer") for each in contents)


def _content(described: Mapping[str, Any]) -> str:
    if "content" not in described:
        return "no body"
    ((media_type, each),) = described["content"].items()
    return type_text(each["schema"]) if media_type == "application/json" else f"`{media_type}`"


def _type(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "", _sentence(schema.get("description", "")), "")
    if "properties" not in schema:
        yield from (f"{type_text(schema)}", "")
        return
    required = schema.get("required", ())
    yield from ("| field | what it is | there |", "| --- | --- | --- |")
    for field, each in schema["properties"].items():
        yield f"| `{field}` | {type_text(each)} | {'always' if field in required else _default(each)} |"
    yield ""


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return f"else `{default}`" if default not in (None, [], "", {}) else "or not"


def type_text(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema allows; types that have a name are linked to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_text(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type", "any JSON value")
    if kind == "array":
        items = schema.get("items") or {}
        return f"list of {type_text(items)}" if items else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_text(schema['additionalProperties'])} by name"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join((kind, *bounds))


def _sentence(text: str) -> str:
    """Return a docstring as one paragraph of Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))
