"""The query and the answer of ``GET /admin/v1/batches``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from dapi.http.answers import HttpError
from dapi.messages import Kind, State

_MAX_LIMIT = 1000
_DEFAULT_LIMIT = 100
_MAX_CURSOR = 2**63 - 1

E = TypeVar("E", bound=enum.StrEnum)


class Page(Protocol):
    """A part of what is kept: rows with a field for each thing that is told, times in seconds since the epoch.

    ``next`` is the cursor of the page after it, None on the last one.
    """

    @property
    def batches(self) -> Sequence[msgspec.Struct]:
        """The rows, newest first."""

    @property
    def next(self) -> int | None:
        """The cursor."""


class BatchListing(Protocol):
    """What knows the batches that are kept: the outbox."""

    def batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = _DEFAULT_LIMIT,
        before: int | None = None,
    ) -> Deferred[Any]:
        """Fire with a Page, newest first, of those that match all filters; fails with StoreError."""

    def retry(self, batch_id: str) -> Deferred[None]:
        """Have a failed batch sent again; fails with UnknownBatchError or StoreError."""


class BatchQuery(msgspec.Struct, frozen=True):
    """What a client asks for; ``cursor`` is the ``next`` of the page before."""

    node_id: str | None = None
    kind: Kind | None = None
    state: State | None = None
    limit: int = _DEFAULT_LIMIT
    cursor: int | None = None

    @classmethod
    def from_args(cls, args: Mapping[bytes, Sequence[bytes]]) -> BatchQuery:
        """Read the arguments of a URL; raise HttpError, naming the argument and what it may be, at a bad one."""
        texts: dict[str, str] = {}
        for raw_name, values in args.items():
            name = raw_name.decode(errors="replace")
            if name not in cls.__struct_fields__:
                raise HttpError(400, f"{name}: is no parameter; there are {', '.join(cls.__struct_fields__)}")
            if len(values) != 1:
                raise HttpError(400, f"{name}: is given {len(values)} times")
            texts[name] = values[0].decode(errors="replace")
        return cls(
            node_id=texts.get("node_id"),
            kind=_member(Kind, "kind", texts),
            state=_member(State, "state", texts),
            limit=_number("limit", texts, 1, _MAX_LIMIT) or _DEFAULT_LIMIT,
            cursor=_number("cursor", texts, 0, _MAX_CURSOR),
        )


def page_of(page: Page) -> dict[str, Any]:
    """Return a page as JSON takes it, times as RFC 3339 in UTC."""
    return {"batches": [_row(row) for row in page.batches], "next": page.next}


def _row(row: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    return {name: _time(value) if name.endswith("_at") else value for name, value in fields.items()}


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _member(members: type[E], name: str, texts: Mapping[str, str]) -> E | None:
    if name not in texts:
        return None
    try:
        return members(texts[name])
    except ValueError as error:
        raise HttpError(400, f"{name}: {texts[name]!r} is none of {', '.join(members)}") from error


def _number(name: str, texts: Mapping[str, str], lowest: int, highest: int) -> int | None:
    if name not in texts:
        return None
    text = texts[name]
    if text.isascii() and text.isdigit() and len(text) <= len(str(highest)) and lowest <= int(text) <= highest:
        return int(text)
    raise HttpError(400, f"{name}: {text!r} is no whole number from {lowest} to {highest}")
