"""Whether two blocks can be of one chain: pure.

A network that began anew has the same keys, and possibly the same id (docs/protocol/measured.md, 'Chain nodes that
fail'). Its blocks are still told from those of the old one: on one chain each height has one block, and a higher block
is never older than a lower one.
"""

from __future__ import annotations

from dapi.chain.rpc_answers import BlockInfo
from dapi.messages.printable import printable


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
