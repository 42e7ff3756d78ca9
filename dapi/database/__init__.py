"""The SQLite file that everything is kept in; the only room that knows of threads.

``Database`` (service.py) owns the file. The owners of its tables give it functions: ``Database.write`` runs them one
after the other on the thread that alone writes, ``Database.read`` on another one. Each thread is a Lane (lane.py).
``transaction`` makes several statements one. A disk that is full or locked heals by itself, a failed fsync never:
service.py draws these states. file.py opens the file, or says why it must not be used. schema.py has the tables, the
states of the messages in them, and how a file of an earlier version is brought up to date.
"""

from dapi.database.file import transaction
from dapi.database.service import Database

__all__ = ["Database", "transaction"]
