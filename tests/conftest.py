"""What pytest is refused, so that it and trial run the same unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a unit test that trial would not run, and both kinds of test in one process."""
    unit = [item for item in items if item.path.is_relative_to(_TESTS / "unit")]
    for item in unit:
        if not isinstance(item.parent, pytest.Class) or not hasattr(item, "_instance"):
            raise pytest.UsageError(
                f"{item.nodeid}: trial would not run it; unit tests are methods of trial's test cases"
            )
    if unit and len(unit) < len(items):
        raise pytest.UsageError(
            "trial's asynchronous tests fail beside pytest-twisted's: run tests/unit and tests/integration apart"
        )
