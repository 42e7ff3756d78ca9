"""The query and the answer of ``GET /admin/v1/batches``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from dapi.http.answers import HttpError, whole_number
from dapi.messages import Kind, State
from dapi.outbox.pages import BatchPage, DamagedRow

MAX_LIMIT = 1000
_DEFAULT_LIMIT = 100
MAX_CURSOR = 2**63 - 1

E = TypeVar("E", bound=enum.StrEnum)


class BatchQuery(msgspec.Struct, frozen=True):
    """The arguments of the URL; ``cursor`` is the ``next`` of the page before."""

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
            limit=_number("limit", texts, 1, MAX_LIMIT) or _DEFAULT_LIMIT,
            cursor=_number("cursor", texts, 0, MAX_CURSOR),
        )


def page_of(page: BatchPage) -> dict[str, Any]:
    """Return a page as values for JSON, times as RFC 3339 in UTC; a damaged row has what is left of it."""
    rows = [
        *(msgspec.structs.asdict(row) for row in page.batches),
        *(row_of(row) for row in page.damaged),
    ]
    rows.sort(key=itemgetter("seq"), reverse=True)
    return {"batches": [with_times(row) for row in rows], "next": page.next}


def row_of(row: DamagedRow) -> dict[str, Any]:
    """Return what is left of a damaged row, as it is listed."""
    return {**row.columns, "state": "damaged", "reason": row.reason}


def with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row with its times, which end in ``_at``, as RFC 3339 in UTC."""
    return {name: _time(value) if name.endswith("_at") else value for name, value in row.items()}


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
    return whole_number(name, texts[name], lowest, highest) if name in texts else None
