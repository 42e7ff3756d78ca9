"""Which of the events of a client's connections get a line in the log."""

from __future__ import annotations

from twisted.logger import Logger

from dapi.websocket.address import WebSocketAddress

# A reason may differ from attempt to attempt.
_LINES_UNTIL_USEFUL = 8


class ConnectionJournal:
    """Logs what is new: a peer that is down, or accepts and closes again every 4 s, would fill the log.

    Until a connection is useful, each thing is logged once for each address, and 8 things at most. ``name`` begins each
    line.
    """

    log = Logger()

    def __init__(self, name: str) -> None:
        self._name = name
        # At most 8.
        self._logged: list[tuple[WebSocketAddress, str]] = []
        self._is_open_logged = False

    def begin_anew(self) -> None:
        """Take everything that comes next as new."""
        self._logged.clear()

    def opened(self, address: WebSocketAddress) -> None:
        """Log that a connection is open, and stays so, unless that is what was logged last."""
        if not self._is_open_logged and self._is_new(address, "open"):
            self._log_open(address)

    def useful(self, address: WebSocketAddress) -> None:
        """Log that the connection is open if that line was left out, and take everything that comes next as new."""
        if not self._is_open_logged:
            self._log_open(address)
        self._logged.clear()

    def failed(self, address: WebSocketAddress, reason: str) -> None:
        """Log why there is no connection."""
        self._is_open_logged = False
        if self._is_new(address, reason):
            self.log.warn(
                "{name}: no WebSocket to {address}: {reason}; trying again every few seconds",
                name=self._name,
                address=str(address),
                reason=reason,
            )

    def replaced(self, address: WebSocketAddress, reason: str) -> None:
        """Log, for whoever wants details, that a connection was replaced as planned."""
        self.log.debug("{name}: WebSocket to {address}: {reason}", name=self._name, address=str(address), reason=reason)

    def _is_new(self, address: WebSocketAddress, event: str) -> bool:
        if (address, event) in self._logged or len(self._logged) >= _LINES_UNTIL_USEFUL:
            return False
        self._logged.append((address, event))
        return True

    def _log_open(self, address: WebSocketAddress) -> None:
        self._is_open_logged = True
        self.log.info("{name}: WebSocket to {address} is open", name=self._name, address=str(address))
