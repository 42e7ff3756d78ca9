"""Hears when a transport cannot send what was written to it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class WriteGuard:
    """Is the transport's producer for a connection: hears when the transport cannot send what was written."""

    def __init__(self, set_blocked: Callable[[bool], None]) -> None:
        self._set_blocked = set_blocked

    def pauseProducing(self) -> None:
        """Hear that the peer leaves it unread."""
        self._set_blocked(True)

    def resumeProducing(self) -> None:
        """Hear that the peer reads again."""
        self._set_blocked(False)

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` follows."""
