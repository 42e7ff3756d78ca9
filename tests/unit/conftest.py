"""Where unit tests leave their files under pytest; trial has a folder of its own for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def folder_for_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make ``mktemp`` of trial's test cases end in a temporary folder instead of the project's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("unit"))
        yield
