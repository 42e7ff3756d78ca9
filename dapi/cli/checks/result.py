"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was found, and what to do where it is not."""

    name: str
    result: Literal["PASS", "FAIL", "SKIPPED"]
    found: str
    to_do: str | None = None


def passed(name: str, found: str) -> Check:
    """Say that it is well."""
    return Check(name, "PASS", found)


def failed(name: str, found: str, to_do: str) -> Check:
    """Say that it is not."""
    return Check(name, "FAIL", found, to_do)


def skipped(name: str, found: str, to_do: str | None = None) -> Check:
    """Say why it was not tried."""
    return Check(name, "SKIPPED", found, to_do)
