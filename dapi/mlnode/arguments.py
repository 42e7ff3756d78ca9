"""The arguments that a node gets when it is to serve a model: the network's, and the host's own beside them.

Source: docs/protocol/chain.md, 'Arguments of models'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# A value may be a negative number.
_KEY = re.compile(r"(--?[A-Za-z][^=]*)(?:=|\Z)", re.DOTALL)


class NetworkArguments:
    """What the network wants each model to be started with: ``by_model``, by its id. All clients share it."""

    def __init__(self) -> None:
        self.by_model: Mapping[str, tuple[str, ...]] = {}

    def merged(self, model: str, own: Sequence[str]) -> tuple[str, ...]:
        """Return the network's arguments for a model, then those of the host's ``own`` whose key is not among them."""
        network = self.by_model.get(model, ())
        taken = {key for key in map(_key, network) if key is not None}
        merged, is_kept = list(network), True
        for argument in own:
            key = _key(argument)
            if key is not None:
                is_kept = key not in taken
            # The values that follow a key share its fate.
            if is_kept:
                merged.append(argument)
        return tuple(merged)


def _key(argument: str) -> str | None:
    """Return the key that an argument is, or begins with; None: it is a value. vLLM takes _ for -."""
    found = _KEY.match(argument)
    return found[1].replace("_", "-") if found is not None else None
