"""The bounds of sending."""

from __future__ import annotations

import attrs

from dapi.chain.transactions import DEFAULT_GAS_LIMIT
from dapi.messages import Kind
from dapi.messages.sizes import MIB
from dapi.timing.retry import RETRY_MAX_SECONDS, RETRY_MIN_SECONDS


@attrs.frozen
class SubmitterSettings:
    """Bounds of what is in flight.

    ``max_in_flight`` transactions at once, of ``max_in_flight_bytes`` together and ``max_transaction_bytes`` each
    (CometBFT's RPC takes about 749,000, a block 22 MB), and ``max_nonces`` in one message (the chain's own limit).
    ``gas_limit`` is that of each transaction. A key that is not the participant's needs grants for these ``kinds``. A
    failure is followed by a random time between the two of ``retry``; a transaction that is in no block yet is offered
    again after ``offer_again_seconds``, and, when a mempool has taken it, later and later.
    """

    max_in_flight: int = 256
    max_in_flight_bytes: int = 64 * MIB
    max_transaction_bytes: int = 700_000
    max_nonces: int = 10_000
    gas_limit: int = DEFAULT_GAS_LIMIT
    kinds: frozenset[Kind] = frozenset(Kind)
    retry_min_seconds: float = RETRY_MIN_SECONDS
    retry_max_seconds: float = RETRY_MAX_SECONDS
    offer_again_seconds: float = 3.0
