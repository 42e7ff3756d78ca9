"""Whether dapi, and the network's api container, may be restarted now, by what is known of both versions of PoC."""

from __future__ import annotations

import attrs

from dapi.orchestration.phase_status import PhaseStatus
from dapi.phases.restart import RestartAdvice, joined
from dapi.relay.knowledge import Knowledge
from dapi.relay.restart import container_advice, dapi_advice


@attrs.frozen
class Restarts:
    """``phases`` tells of PoC v1, None where no chain is followed; ``knowledge`` of v2, None where it is not watched.

    ``is_relayed`` says that callbacks of PoC v2 pass through dapi.
    """

    _phases: PhaseStatus | None
    _knowledge: Knowledge | None
    _is_relayed: bool

    def of_dapi(self) -> RestartAdvice | None:
        """Return the advice for dapi, None where it knows nothing of the chain.

        While the chain runs v1 there is no stage of v2, whatever the api container says, or does not.
        """
        advices = [self._phases.restart_advice()] if self._phases is not None else []
        if self._knowledge is not None and not (self._phases is not None and self._phases.runs_v1):
            advices.append(dapi_advice(self._knowledge, is_relayed=self._is_relayed))
        return joined(advices)

    def of_container(self) -> RestartAdvice | None:
        """Return the advice for the api container, None where PoC v2 is not watched."""
        return container_advice(self._knowledge, is_relayed=self._is_relayed) if self._knowledge is not None else None
