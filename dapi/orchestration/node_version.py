"""Follows the version that the chain wants the ML nodes to have: it is the prefix of their paths.

Source: docs/protocol/chain.md, 'Queries', and docs/protocol/node.md, 'Addresses'.
"""

from __future__ import annotations

import re

import msgspec

from dapi.chain.rpc import ChainRpc
from dapi.mlnode.client import NetworkVersion
from dapi.phases.host_queries import mlnode_version
from dapi.phases.phases import EpochInfo

# An upgrade of the chain changes it at any height.
_LOOK_AGAIN_BLOCKS = 10
_SEGMENT = re.compile(r"(?!\.+\Z)[A-Za-z0-9._~-]{1,64}")


class FollowedVersion(msgspec.Struct, frozen=True):
    """The ``version`` that the nodes' paths have, empty where there is none; ``unusable`` is what is no part of one."""

    version: str
    unusable: str | None


class VersionFollowing:
    """Asks for the version every 10 blocks; the clients of all nodes that set none use it."""

    name = "node_version"

    def __init__(self, rpc: ChainRpc, version: NetworkVersion) -> None:
        self._rpc = rpc
        self._version = version
        self._asked_at: int | None = None
        self._unusable: str | None = None

    async def look(self, info: EpochInfo) -> None:
        """Ask, unless that was done a short time ago; raises ChainError."""
        if self._asked_at is not None and info.block_height < self._asked_at + _LOOK_AGAIN_BLOCKS:
            return
        version = (await mlnode_version(self._rpc, info.block_height)).strip("/")
        is_usable = not version or _SEGMENT.fullmatch(version) is not None
        self._unusable = None if is_usable else version
        self._version.value = version if is_usable else ""
        self._asked_at = info.block_height

    def status(self) -> FollowedVersion:
        """Return what the chain wants."""
        return FollowedVersion(self._version.value, self._unusable)
