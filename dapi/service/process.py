"""What is known of the process."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any

_OPEN_FILES = "/proc/self/fd"


def process_status() -> dict[str, Any]:
    """Return how many files are open (None: the system does not tell) and may be (None: any number)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"open_files": _open_files(limit), "max_files": None if limit == resource.RLIM_INFINITY else limit}


def _open_files(limit: int) -> int | None:
    try:
        return len(os.listdir(_OPEN_FILES))
    except OSError as error:
        # To look takes a file, too.
        return limit if error.errno == errno.EMFILE else None
