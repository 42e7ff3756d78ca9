"""What one node is to do."""

from __future__ import annotations

import enum


class Duty(enum.StrEnum):
    """What one node is to do; a node that has no duty is left alone.

    The phases give each node its duty (``orchestration/``); ``broker/duties.py`` says which command brings a node to
    a duty, and what the node says of itself when it does it.
    """

    GENERATE = "GENERATE"
    VALIDATE = "VALIDATE"
    INFERENCE = "INFERENCE"
    STOPPED = "STOPPED"
