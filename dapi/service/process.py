"""What is known of the process."""

from __future__ import annotations

import os
import resource
from typing import Any

_OPEN_FILES = "/proc/self/fd"


def process_status() -> dict[str, Any]:
    """Return how many files are open (None: the system does not tell) and may be (None: any number)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "open_files": len(os.listdir(_OPEN_FILES)) if os.path.isdir(_OPEN_FILES) else None,
        "max_files": None if limit == resource.RLIM_INFINITY else limit,
    }
