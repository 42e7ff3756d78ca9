"""Checks of the doors: who can come in."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status
from dapi.messages.urls import is_loopback


def admin(status: Status) -> Iterator[Finding]:
    """Find that the admin API is open to others."""
    host = status["admin"]["host"]
    if not is_loopback(host):
        problem = f"the admin API is open to whoever reaches {host}: it asks for no password"
        to_do = "set api.admin_server_host to 127.0.0.1, or let only trusted hosts reach the port"
        yield Finding(ProblemId.ADMIN_OPEN, problem, to_do, is_logged=True)
