# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""``GET /openapi.json`` of each port: its routes in OpenAPI 3.1, made of the types that decode and encode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import attrs
import msgspec
from twisted.web.server import Request

from dapi import __version__
from dapi.http.answers import answer
from dapi.http.routes import Route
from dapi.server.answer_types import ErrorAnswer

Answer: TypeAlias = "type | tuple[type, ...] | str | None"
"""The type of an answer in JSON, one of several, another media type, or None for an empty one."""

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
PATH = "/openapi.json"


@attrs.frozen
class Operation:
    """What one method of one path does: ``answers`` by status, but for errors, which all have one form.

    ``body`` is the type of the request's JSON, ``query`` a struct with the arguments of its URL.
    """

    summary: str
    answers: Mapping[int, Answer]
    body: type | None = None
    query: type[msgspec.Struct] | None = None


Operations: TypeAlias = Mapping[tuple[str, str], Operation]
"""The operations of a port by method and path, which is written as in its route."""


class OpenApiRoute:
    """Answers with the description of a port, the route itself included; ``is_open`` is that of the Route."""

    def __init__(self, title: str, operations: Operations, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._title = title
        self._operations = {**operations, ("GET", PATH): Operation("This description.", {200: dict})}
        self._encoded: bytes | None = None

    def routes(self) -> tuple[Route, ...]:
        """Return the route."""
        return (Route("GET", PATH, self._get_description, self._is_open),)

    def _get_description(self, request: Request) -> bytes:
        if self._encoded is None:
            self._encoded = msgspec.json.encode(document(self._title, self._operations, is_open=self._is_open))
        return answer(request, 200, self._encoded)


def document(title: str, operations: Operations, *, is_open: bool = False) -> dict[str, Any]:
    """Return the description of a port as JSON data; one that is not open may ask for a bearer token."""
    types = _types_of(operations.values())
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        item = paths.setdefault(_PARAMETER.sub(r"{\1}", path), {})
        item[method.lower()] = _operation(method, path, operation, schemas, components)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": _with_patterns_of_javascript(components)},
    }
    if not is_open:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        # Without one, where the port is on a loopback address.
        described["security"] = [{}, {"token": []}]
    return described


def _with_patterns_of_javascript(value: Any) -> Any:
    """Write the end of a text in patterns as JSON Schema does, whose dialect is that of JavaScript."""
    if isinstance(value, list):
        return [_with_patterns_of_javascript(each) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _with_patterns_of_javascript(each) for name, each in value.items()}
    if isinstance(pattern := changed.get("pattern"), str):
        changed["pattern"] = pattern.replace(r"\Z", "$")
    return changed


def _types_of(operations: Iterable[Operation]) -> list[Any]:
    types: dict[Any, None] = {ErrorAnswer: None}
    for operation in operations:
        answers = [each for found in operation.answers.values() for each in _alternatives(found)]
        for each in (*answers, operation.body, operation.query):
            if each is not None and not isinstance(each, str):
                types[each] = None
    return list(types)


def _alternatives(found: Answer) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _operation(
    method: str, path: str, operation: Operation, schemas: Mapping[Any, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": "_".join(re.findall(r"\w+", f"{method.lower()} {path}")),
        "responses": {
            **{str(code): _response(found, schemas) for code, found in operation.answers.items()},
            "4XX": _response(ErrorAnswer, schemas, "The request was refused: what is wrong, and what to do."),
        },
    }
    if 503 not in operation.answers:
        text = "Not now: the disk or the nodes are not ready."
        described["responses"]["503"] = _response(ErrorAnswer, schemas, text)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(path)
    ]
    if operation.query is not None:
        parameters += _query_parameters(components[operation.query.__name__])
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(schemas[operation.body])}
    return described


def _query_parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(each)}
        for name, each in schema["properties"].items()
    ]


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an argument, which is there or is not, and never null."""
    alternatives = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default") or value is None}
    kept.pop("default", None)
    return {**kept, **alternatives[0]} if len(alternatives) == 1 else {**schema}


def _response(wanted: Answer, schemas: Mapping[Any, Any], text: str | None = None) -> dict[str, Any]:
    if wanted is None:
        return {"description": "Done; the body is empty."}
    if isinstance(wanted, str):
        return {"description": "A text.", "content": {wanted: {"schema": {"type": "string"}}}}
    found = [schemas[each] for each in _alternatives(wanted)]
    content = _json(found[0] if len(found) == 1 else {"anyOf": found})
    return {"description": text or "The answer.", "content": content}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
