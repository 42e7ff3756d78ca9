"""The SQLite file that everything is kept in."""

from dapi.database.file import transaction
from dapi.database.service import Database

__all__ = ["Database", "transaction"]
