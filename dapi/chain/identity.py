"""Whether two blocks can be of one chain: pure.

A network that began anew has the same keys, and possibly the same id (docs/protocol/measured.md, 'Chain nodes that
fail'). Its blocks are still told from those of the old one: on one chain each height has one block, and a higher block
is never older than a lower one.
"""

from __future__ import annotations

from dapi.chain.rpc_answers import BlockInfo
from dapi.messages.printable import printable

# No chain is so fast, by far: test networks come to 10. A height beyond that was never reached: whoever tells it is
# wrong, and not all the other nodes.
_MAX_BLOCKS_A_SECOND = 100
_MAX_BLOCKS_AT_ONCE = 1000


def contradiction(known: BlockInfo, told: BlockInfo) -> str | None:
    """Say in words why the block ``told`` is not of the chain of the block ``known``; None when it can be.

    A block whose hash is unknown has the hash "".
    """
    if told.chain_id != known.chain_id:
        return f"its chain id is {printable(told.chain_id)}, not {known.chain_id}"
    if told.height == known.height:
        if known.hash and told.hash and told.hash.upper() != known.hash.upper():
            return f"its block {told.height} has the hash {printable(told.hash)}, not {known.hash}"
        return None
    if told.height < known.height and told.time_ns > known.time_ns:
        return f"it is at block {told.height}, which is younger than our block {known.height}: it began anew"
    if told.height > known.height and told.time_ns < known.time_ns:
        return f"its block {told.height} is older than our block {known.height}"
    return None


def impossible_height(known: BlockInfo, told: BlockInfo) -> str | None:
    """Say in words why no chain of the block ``known`` has the height of ``told``; None when one may have."""
    seconds = max(0, told.time_ns - known.time_ns) // 10**9
    if told.height - known.height > _MAX_BLOCKS_AT_ONCE + _MAX_BLOCKS_A_SECOND * seconds:
        return f"its block {told.height} cannot have come {seconds} s after our block {known.height}"
    return None
