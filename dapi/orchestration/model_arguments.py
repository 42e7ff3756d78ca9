"""Follows the arguments that the network wants each model to be started with (NetworkArguments).

Source: docs/protocol/chain.md, 'Arguments of models'.
"""

from __future__ import annotations

from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, ChainRefusedError
from dapi.mlnode.arguments import NetworkArguments
from dapi.phases.host_queries import model_arguments
from dapi.phases.phases import EpochInfo, regular_stage

# Governance, and with each epoch the groups, may change them at any time; a node gets them when it begins to serve.
_LOOK_AGAIN_BLOCKS = 10
# So long nodes wait for an answer before they begin to serve without.
_PATIENCE_BLOCKS = 5


class ArgumentsFollowing:
    """Asks the chain before nodes begin to serve, and every 10 blocks outside of PoC, for the models of our nodes."""

    log = Logger()

    def __init__(self, rpc: ChainRpc, broker: Broker, arguments: NetworkArguments) -> None:
        self._rpc = rpc
        self._broker = broker
        self._arguments = arguments
        # For which models nobody waits any more, None for none yet.
        self._models: frozenset[str] | None = None
        self._ask_again_at = 0
        self._waiting_since: int | None = None

    async def learn(self, info: EpochInfo) -> None:
        """Ask, unless that was done a short time ago for all our models; ``info`` is of the latest block.

        Raises ChainError outside of PoC while nothing is known, for 5 blocks: a node that began to serve without these
        arguments would serve so until the next PoC. Any other question that fails leaves all as it is.
        """
        height, is_poc = info.block_height, info.stage_under_way() is not None
        models = frozenset(model for node in self._broker.nodes() for model in node.config.models)
        is_known = self._models is not None and models <= self._models
        if (is_known and is_poc) or (height < self._ask_again_at and (is_known or is_poc)):
            return
        try:
            self._arguments.by_model = await self._ask(info, models)
        except ChainError as error:
            if not is_known and not is_poc:
                self._waiting_since = height if self._waiting_since is None else self._waiting_since
                if height < self._waiting_since + _PATIENCE_BLOCKS and not isinstance(error, ChainRefusedError):
                    raise
                self._models = models
            self.log.warn("what the network wants models to be started with is not known: {error}", error=str(error))
        else:
            self._models = models
        self._waiting_since = None
        self._ask_again_at = height + _LOOK_AGAIN_BLOCKS

    async def _ask(self, info: EpochInfo, models: frozenset[str]) -> dict[str, tuple[str, ...]]:
        stage = regular_stage(info.parameters, info.index, info.poc_start)
        # Until its validation has ended, the latest epoch has no groups.
        epoch = info.index if info.block_height > stage.validations.last else info.index - 1
        return await model_arguments(self._rpc, max(0, epoch), models, info.block_height)
