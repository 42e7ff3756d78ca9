"""How long one try to hand a payload on may take. Pure.

A container that hangs must not keep a payload until it is too late, and one that is slow must get the time that it
needs. So a try is over 45 s before the stage ends at the latest, and after that tries are short: the container keeps a
nonce once, and a body that it got in spite of a try that was given up counts all the same.

A result of a validation is tried so until the validation ends. One that was taken in spite of a try that was given up
goes again, and costs a message; one that is not tried again would be a vote that is lost.
"""

from __future__ import annotations

from dapi.messages.sizes import MIB

TRY_SECONDS = 60.0
TAIL_SECONDS = 60.0
"""In the last minute of a stage everything is sent at once."""
_LAST_SECONDS = 45.0
_SHORT_SECONDS = 5.0
_LONG_SECONDS = 10.0
_SHORT_TRIES = 2
_SLOWEST_BYTES_PER_SECOND = 4 * MIB


def try_seconds(size: int, seconds_left: float | None, tries: int) -> float:
    """Return for how many seconds a payload of ``size`` bytes is tried, for the ``tries``-th time.

    ``seconds_left`` is until it is taken no more, None where that is not known.
    """
    if seconds_left is None:
        return TRY_SECONDS
    short = _SHORT_SECONDS if tries <= _SHORT_TRIES else _LONG_SECONDS
    return min(TRY_SECONDS, max(short + size / _SLOWEST_BYTES_PER_SECOND, seconds_left - _LAST_SECONDS))
