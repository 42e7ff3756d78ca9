"""The two halves of Submissions.begin, for tests that look at each: what is chosen, and what is put in flight."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from dapi.submission import rows
from dapi.submission.choice import Room, next_messages
from dapi.submission.rows import Message
from dapi.submission.submissions import Submissions


def choose(submissions: Submissions, height: int, room: Room) -> Deferred[list[Message]]:
    """Fire with the messages that belong into the next transaction, with bodies."""
    submissions._shares.begin_round()
    choosing = submissions._change(next_messages, height, room, submissions._shares, submissions._now())
    return choosing.addCallback(lambda chosen: chosen[0])


def put_in_flight(
    submissions: Submissions, messages: Sequence[Message], tx_hash: str, timeout_ns: int, first_height: int
) -> Deferred[None]:
    """Put messages into a transaction, if all of them are stored."""
    return submissions._change(rows.put_in_flight, messages, tx_hash, timeout_ns, first_height)
