"""The admin routes about batches: lists of them, one with its whole story, and those that failed sent again."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from twisted.web.server import Request

from dapi.http.answers import HttpError, json_answer, shielded
from dapi.messages import State
from dapi.outbox.outbox import Outbox
from dapi.outbox.pages import BatchRow
from dapi.outbox.story import BatchStory
from dapi.server.answer_types import BatchMessage, RetriedAnswer
from dapi.server.batch_list import BatchQuery, page_of, row_of, with_times
from dapi.submission.rows import TYPE_URLS

_EXPORTED_AT_ONCE = 100


class BatchRoutes:
    """The routes ``GET batches``, ``batches/export``, ``batches/<id>``, ``POST batches/<id>/retry``, ``batches/retry``.

    Each answer is bounded: what has more has ``next``, the ``cursor`` of the next request.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def get_batches(self, request: Request) -> bytes:
        """Answer with a page of batches, the newest first."""
        query = BatchQuery.from_args(request.args or {})
        page = await self._outbox.batches(
            node_id=query.node_id, kind=query.kind, state=query.state, limit=query.limit, before=query.cursor
        )
        return json_answer(request, page_of(page))

    async def get_export(self, request: Request) -> bytes:
        """Answer with a page of batches, each with its message in base64, or null where dapi does not keep it."""
        query = BatchQuery.from_args(request.args or {})
        found = await self._outbox.whole_batches(
            node_id=query.node_id,
            kind=query.kind,
            state=query.state,
            limit=min(query.limit, _EXPORTED_AT_ONCE),
            before=query.cursor,
        )
        page = page_of(found.page)
        for row in page["batches"]:
            message = found.messages.get(row["seq"])
            row["type_url"] = TYPE_URLS.get(row.get("kind"))
            row["message"] = base64.b64encode(message).decode() if message is not None else None
        return json_answer(request, page)

    async def get_batch(self, request: Request, batch_id: str) -> bytes:
        """Answer with all that is known of one batch."""
        return json_answer(request, story_of(await self._outbox.story(batch_id)))

    async def retry_batch(self, request: Request, batch_id: str) -> bytes:
        """Send one failed batch again."""
        await shielded(self._outbox.retry(batch_id), "sending a batch again")
        return json_answer(request, BatchMessage("the batch is sent again", batch_id))

    async def retry_batches(self, request: Request) -> bytes:
        """Send failed batches that match again, as many as one commit takes."""
        query = BatchQuery.from_args(request.args or {})
        if query.state not in (None, State.FAILED):
            raise HttpError(400, f"state: is {query.state.value!r}, and only what has failed can be sent again")
        retrying = self._outbox.retry_some(node_id=query.node_id, kind=query.kind, before=query.cursor)
        done = await shielded(retrying, "sending batches again")
        return json_answer(request, RetriedAnswer(done.batches, done.next))


def story_of(story: BatchStory) -> dict[str, Any]:
    """Return a story as values for JSON, in the form of a row of the list, and more."""
    row = msgspec.structs.asdict(story.row) if isinstance(story.row, BatchRow) else row_of(story.row)
    return {
        **with_times(row),
        "ways": story.ways,
        "attempts": story.attempts,
        "parts": story.parts,
        "transactions": [with_times(msgspec.structs.asdict(each)) for each in story.transactions],
    }
