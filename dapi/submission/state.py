"""What all steps of sending share."""

from __future__ import annotations

import attrs

from dapi.submission.in_flight import InFlight
from dapi.submission.pace import Pace
from dapi.submission.problems import Problems
from dapi.submission.signing import Signing


@attrs.frozen
class SendingState:
    """With what is signed, how much may be sent, what keeps it back, and what is in flight; in memory only."""

    signing: Signing
    pace: Pace
    problems: Problems
    in_flight: InFlight
