"""A database as an earlier dapi left it."""

from __future__ import annotations

from pathlib import Path

OLD_FILE = Path(__file__).parents[2] / "vectors" / "database_of_schema_11.db.gz"
"""That of a dapi whose schema had 11 versions, as that dapi closed it: two nodes, two stages, every state."""
