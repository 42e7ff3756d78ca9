"""What all queries share: reading the request, and saying no."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dapi.simulator.chain.state import StateView
from dapi.simulator.chain.wire import Message, WireError, decode

M = TypeVar("M", bound=Message)

HEIGHT_IN_FUTURE = "cannot query with height in the future; please provide a valid height: invalid height"

Query = Callable[[StateView, bytes], bytes]


class QueryRefused(Exception):  # noqa: N818
    """A query fails with a code, of codespace ``sdk`` unless said otherwise."""

    def __init__(self, code: int, log: str, codespace: str = "sdk") -> None:
        super().__init__(log)
        self.code = code
        self.codespace = codespace


def not_found(what: str) -> QueryRefused:
    """Return the refusal for something that is not there."""
    return QueryRefused(22, f"rpc error: code = NotFound desc = {what}: key not found")


def read_request(message_type: type[M], data: bytes) -> M:
    """Decode a request; raises QueryRefused."""
    try:
        return decode(message_type, data)
    except WireError as error:
        raise QueryRefused(18, f"{error}: invalid request") from error
