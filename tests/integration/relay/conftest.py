"""What holds for all tests of the relay on real sockets."""

from __future__ import annotations

import pytest

from dapi.relay import relay


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the relay wait for the disk as long as a busy machine needs; for how long it does, unit tests see."""
    # Not at the top, which is read before pytest-twisted installs the reactor that was asked for.
    from tests.integration.waiting import PATIENCE_SECONDS

    monkeypatch.setattr(relay, "_STORE_SECONDS", PATIENCE_SECONDS)
