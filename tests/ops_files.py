"""The files of ``ops/``, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

OPS = Path(__file__).parents[1] / "ops"


def text_of(name: str) -> str:
    return (OPS / name).read_text(encoding="utf-8")


def alert_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(text_of("alerts.yml"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text_of("dashboard.json"))["panels"]
    return found


def expressions_of_panels() -> Iterator[str]:
    """Every expression of the dashboard's panels."""
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))
