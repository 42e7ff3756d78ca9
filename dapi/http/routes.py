"""Routes that a part of dapi brings along, for whichever port wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from klein import Klein


class Route(NamedTuple):
    """A method, a path from the root of the port, and what Klein calls with the request.

    ``is_open`` tells that whoever reaches the port may call it; the doors in dapi/server ask the others for proof.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    is_open: bool = False


def add_routes(app: Klein, routes: Iterable[Route]) -> None:
    """Have an app answer routes, each under an endpoint of its own."""
    for route in routes:
        app.route(route.path, methods=[route.method], endpoint=f"{route.method} {route.path}")(route.handler)


def open_paths(routes: Iterable[Route]) -> list[str]:
    """Return the paths that are open to everybody."""
    return [route.path for route in routes if route.is_open]
