"""The settings of a WebSocket that is kept open. The defaults are the promised behaviour."""

from __future__ import annotations

import msgspec

from dapi.errors import ConfigError
from dapi.http.headers_file import HeadersFile
from dapi.messages.sizes import MIB
from dapi.timing.retry import RETRY_MAX_SECONDS, RETRY_MIN_SECONDS


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes; ConfigError when one of them cannot be right.

    ``retry_min_seconds`` and ``retry_max_seconds`` bound the uniform delay before each retry. A restart waits until
    ``settle_seconds`` after the end of the last connection, so that the peer has noticed it. A message may have
    ``max_message_bytes``, in ``max_frames``; ``max_pings`` may come within 10 s. ``ca_file`` is a PEM file
    whose certificates are trusted instead of the system's; with a ``fingerprint`` the peer has to show the certificate
    with that SHA-256. ``headers`` go along with each upgrade.
    """

    retry_min_seconds: float = RETRY_MIN_SECONDS
    retry_max_seconds: float = RETRY_MAX_SECONDS
    connect_timeout_seconds: float = 10
    handshake_timeout_seconds: float = 10
    ping_interval_seconds: float = 20
    ping_timeout_seconds: float = 15
    close_timeout_seconds: float = 1
    settle_seconds: float = 1
    max_message_bytes: int = 16 * MIB
    max_frames: int = 1024
    max_pings: int = 100
    compression: bool = False
    ca_file: str | None = None
    fingerprint: str | None = None
    headers: HeadersFile | None = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            # Written so that NaN fails too. Only the settling may be left out.
            if not (value > 0 or (value == 0 and field.name == "settle_seconds")):
                raise ConfigError(f"{field.name} is {value}, it must be positive")
        if self.retry_min_seconds > self.retry_max_seconds:
            low, high = self.retry_min_seconds, self.retry_max_seconds
            raise ConfigError(f"retry_min_seconds ({low:g}) is more than retry_max_seconds ({high:g})")
