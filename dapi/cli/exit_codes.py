"""What an exit code of ``dapi`` means."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit codes; docs/cli.md, 'Exit codes' tells them to people."""

    OK = 0
    REFUSED = 1
    """dapi refuses: there is no such thing, it is not possible now, or a file cannot be used."""
    USAGE = 2
    """The command line is wrong; click's own code."""
    NO = 3
    """The answer is no: a restart is not safe, a check or a test has failed, a node did not do what it was told."""
    UNREACHABLE = 4
    """No dapi answers at the URL."""
    INTERRUPTED = 130
    """Ctrl-C, as shells tell it."""
