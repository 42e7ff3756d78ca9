"""Whether something may be restarted now without harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

BLOCKS_FOR_A_RESTART = 10
"""What a restart, and a failed command or two after it, may take."""


class RestartAdvice(msgspec.Struct, frozen=True):
    """Whether it is ``safe``, else the ``reason`` why not.

    ``blocks_left`` says for how many blocks it is (None: not known), ``safe_at`` from which block on it is again (None
    where it is safe, or where that is not known).
    """

    safe: bool
    reason: str | None = None
    blocks_left: int | None = None
    safe_at: int | None = None


def joined(advices: Sequence[RestartAdvice]) -> RestartAdvice | None:
    """Return the advice that heeds all of these, None without any."""
    if not advices:
        return None
    against = [advice for advice in advices if not advice.safe]
    if not against:
        return RestartAdvice(True, blocks_left=_least(advice.blocks_left for advice in advices))
    is_known = all(advice.blocks_left is not None for advice in against)
    ends = [advice.safe_at for advice in against if advice.safe_at is not None]
    return RestartAdvice(
        False,
        "; ".join(advice.reason for advice in against if advice.reason is not None),
        _least(advice.blocks_left for advice in against) if is_known else None,
        max(ends) if len(ends) == len(against) else None,
    )


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
