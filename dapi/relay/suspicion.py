"""Which nonces no node of the host makes. Pure.

Whoever knows the relay's prefix could deliver what costs the host its stage: others judge a participant by a sample of
its nonces, and by how far apart they lie. Facts: docs/protocol/poc-v2.md, 'Senders' and 'Judgement'.
"""

from __future__ import annotations

from collections.abc import Iterable

from dapi.relay.facts import Facts

# Validators reject a participant whose highest nonce is so many times its count.
_POROSITY = 100
# One backend of eight may be the first to deliver, or the only one that works.
_BACKENDS = 8
# With hardly anything counted, the ratio says nothing.
_FEW = 10


def is_of_its_node(facts: Facts, node_count: int) -> bool:
    """Tell whether all nonces leave the node's number as the rest of the division by the node count."""
    if facts.node_num is None:
        return True
    return facts.first % node_count == facts.node_num % node_count and facts.spacing % node_count == 0


def is_content_type_right(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a callback is JSON by its head, which is all that nodes send; without a type it is refused."""
    types = [value for name, value in headers if name == b"content-type"]
    return all(each.partition(b";")[0].strip() == b"application/json" for each in types)


def is_too_high(facts: Facts, counted: int, node_count: int) -> bool:
    """Tell whether the highest nonce is above all that nodes reach with so many artifacts in the stage.

    A node's nonces grow by the node count, or by a multiple where it has several backends.
    """
    artifacts = max(counted + facts.distinct, _FEW * node_count)
    return facts.highest >= max(_POROSITY, _BACKENDS * node_count) * artifacts
