"""Routes that a part of dapi brings along, for whichever port wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from klein import Klein


class Route(NamedTuple):
    """A method, a path from the root of the port, and what Klein calls with the request."""

    method: str
    path: str
    handler: Callable[..., Any]


def add_routes(app: Klein, routes: Iterable[Route]) -> None:
    """Have an app answer routes, each under an endpoint of its own."""
    for method, path, handler in routes:
        app.route(path, methods=[method], endpoint=f"{method} {path}")(handler)
