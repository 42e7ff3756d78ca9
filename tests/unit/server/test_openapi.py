"""The descriptions of both ports: every route is described, and every route that is described is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dapi.config import Config
from dapi.http.answers import new_app
from dapi.http.listener import HttpListener
from dapi.http.routes import add_routes
from dapi.server.openapi import PATH, OpenApiRoute, Operation, document
from dapi.server.operations import ADMIN, CALLBACKS
from dapi.service import make_service
from tests.unit.server.resource_client import ResourceClient


def routes_of(listener: HttpListener) -> set[tuple[str, str]]:
    """The methods and paths that a port has."""
    resource: Any = listener.site.resource
    while not hasattr(resource, "_app"):
        resource = resource._guarded
    return {
        (method, rule.rule)
        for rule in resource._app.url_map.iter_rules()
        # HEAD comes with each GET.
        for method in rule.methods - {"HEAD"}
    }


def values_of(value: Any, name: str) -> Iterator[Any]:
    """Every value that stands under a name anywhere in JSON data."""
    if isinstance(value, dict):
        yield from (each for key, each in value.items() if key == name)
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from values_of(each, name)


class RouteTests(SynchronousTestCase):
    def test_each_route_is_described_and_each_that_is_described_is_there(self) -> None:
        service = make_service(Config(), MemoryReactorClock())
        own = ("GET", PATH)
        self.assertEqual(routes_of(service.admin_listener), {*ADMIN, own})
        self.assertEqual(routes_of(service.callback_listener), {*CALLBACKS, own})


class DocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.documents = {
            "admin": document("admin", ADMIN),
            "callbacks": document("callbacks", CALLBACKS, is_open=True),
        }

    def test_references_lead_somewhere(self) -> None:
        for described in self.documents.values():
            found = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
            self.assertLessEqual(set(values_of(described, "$ref")), found)

    def test_the_admin_port_may_ask_for_a_token_and_that_of_the_nodes_never_does(self) -> None:
        self.assertEqual(self.documents["admin"]["security"], [{}, {"token": []}])
        self.assertIn("token", self.documents["admin"]["components"]["securitySchemes"])
        self.assertNotIn("security", self.documents["callbacks"])

    def test_names_of_operations_are_unique(self) -> None:
        for described in self.documents.values():
            ids = list(values_of(described, "operationId"))
            self.assertEqual(len(ids), len(set(ids)))

    def test_patterns_are_those_of_javascript(self) -> None:
        patterns = list(values_of(self.documents["admin"], "pattern"))
        self.assertTrue(patterns)
        self.assertEqual([pattern for pattern in patterns if isinstance(pattern, str) and r"\Z" in pattern], [])

    def test_parameters_of_paths_are_declared(self) -> None:
        for described in self.documents.values():
            for path, item in described["paths"].items():
                for operation in item.values():
                    declared = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"]
                    self.assertEqual(declared, re.findall(r"\{(\w+)\}", path))

    def test_every_operation_says_what_errors_look_like(self) -> None:
        for described in self.documents.values():
            for item in described["paths"].values():
                for operation in item.values():
                    self.assertTrue(operation["summary"].endswith("."))
                    (schema,) = values_of(operation["responses"]["4XX"], "schema")
                    self.assertEqual(schema, {"$ref": "#/components/schemas/ErrorAnswer"})

    def test_what_a_type_forbids_is_forbidden(self) -> None:
        schemas = self.documents["admin"]["components"]["schemas"]
        self.assertFalse(schemas["NodeConfig"]["additionalProperties"])
        self.assertEqual(schemas["NodeConfig"]["properties"]["poc_port"]["maximum"], 65535)
        self.assertEqual(self.documents["callbacks"]["components"]["schemas"]["ProofBatch"]["required"][-1], "node_id")


class AnswerTests(SynchronousTestCase):
    def test_is_answered_and_describes_itself(self) -> None:
        app = new_app()
        operations = {("GET", "/x/<path:name>"): Operation("One.", {200: bool})}
        add_routes(app, OpenApiRoute("a title", operations).routes())
        http = ResourceClient(self, app.resource())
        for _ in range(2):
            response, body = http.answered(http.ask("GET", f"http://127.0.0.1{PATH}", None, {}))
            self.assertEqual(response.code, 200)
            described = msgspec.json.decode(body)
            self.assertEqual((described["openapi"], described["info"]["title"]), ("3.1.0", "a title"))
            self.assertEqual(set(described["paths"]), {"/x/{name}", PATH})
