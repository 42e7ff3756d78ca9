"""Asks the chain what it has of a participant's stage: the count that is committed, how its nodes weigh, its votes.

Nothing else tells that a commit arrived: the api container takes a refused one for sent. Nothing else tells of a PoC
challenge either. Facts: docs/protocol/poc-v2.md, 'What can be asked', 'Commits', 'Votes' and 'Challenges'.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message
from twisted.internet.defer import Deferred

from dapi.chain.clock_offset import ClockOffset
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import artifacts_pb2
from dapi.messages.sizes import MIB
from dapi.relay.api_answers import StageKind, StageWindow
from dapi.timing.pool_thread import PoolThread

_QUERY = "/inference.inference.Query/"
_MAX_ANSWER_BYTES = 16 * MIB

M = TypeVar("M", bound=Message)


class Votes(NamedTuple):
    """How many participants have committed in a stage and model, and on how many of them there is our vote."""

    participants: int
    ours: int


class ChainQuestions:
    """What ``participant`` (an address) has on the chain. Its methods raise ChainError."""

    def __init__(self, reactor: Any, rpc: ChainRpc, participant: str) -> None:
        self._rpc = rpc
        self._participant = participant
        self._thread = PoolThread(reactor)
        self._clock = ClockOffset()

    @property
    def clock_offset_seconds(self) -> float | None:
        """By how many seconds this machine's clock is ahead (above 0) or behind (below 0); None: not known yet."""
        return self._clock.seconds

    async def look_at_clock(self) -> None:
        """Compare the clock with the latest block."""
        status = await self._rpc.status()
        self._clock.record(status.height, status.block_time_ns)

    async def committed(self, height: int, model: str) -> int:
        """Return the count of the last commit of a stage and model, 0 without one."""
        answer = await self._ask(
            "PoCV2StoreCommit", artifacts_pb2.QueryPoCV2StoreCommitResponse, self._of(height, model)
        )
        return answer.count if answer.found else 0

    async def has_weights(self, height: int, model: str) -> bool:
        """Tell whether the chain has the weights of the nodes, without which a commit counts nothing."""
        response_type = artifacts_pb2.QueryMLNodeWeightDistributionResponse
        return (await self._ask("MLNodeWeightDistribution", response_type, self._of(height, model))).found

    async def votes(self, height: int) -> dict[str, Votes]:
        """Return how far validation is, by model."""
        request = artifacts_pb2.QueryWholeStageRequest(poc_stage_start_block_height=height)
        commits = await self._ask(
            "AllPoCV2StoreCommitsForStage", artifacts_pb2.QueryAllPoCV2StoreCommitsForStageResponse, request
        )
        votes = await self._ask(
            "PocV2ValidationsForStage", artifacts_pb2.QueryPocV2ValidationsForStageResponse, request
        )
        return await self._thread.run(self._count, commits, votes)

    async def challenge(self) -> StageWindow | None:
        """Return the PoC challenge of this participant that is open, None without one, or where the chain knows none.

        Artifacts are taken below its finish, and no result is.
        """
        request, response_type = artifacts_pb2.QueryWholeStageRequest(), artifacts_pb2.QueryOpenPoCChallengesResponse
        try:
            answer = await self._ask("OpenPoCChallenges", response_type, request)
        except ChainRefusedError:
            # Chains before v0.2.16 do not know the question.
            return None
        for each in answer.challenges:
            start, finish = each.challenge.start_height, each.finish
            if each.challenge.target == self._participant and 0 < start < finish:
                return StageWindow(start, start, finish - 1, finish, finish, StageKind.CHALLENGE)
        return None

    def close(self) -> Deferred[None]:
        """Abort what is left; fires when nothing is."""
        return self._rpc.close()

    def _of(self, height: int, model: str) -> Message:
        return artifacts_pb2.QueryOfStageRequest(
            poc_stage_start_block_height=height, participant=self._participant, model_id=model
        )

    async def _ask(self, question: str, response_type: type[M], request: Message) -> M:
        # What is not there is an empty value.
        answer = await self._rpc.abci_query(
            f"{_QUERY}{question}", request.SerializeToString(), max_bytes=_MAX_ANSWER_BYTES
        )
        try:
            return await self._thread.run(response_type.FromString, answer.value)
        except DecodeError as error:
            raise ChainUnavailableError(f"{question}: the answer is no {response_type.__name__}: {error}") from error

    def _count(self, commits: Any, votes: Any) -> dict[str, Votes]:
        participants: dict[str, set[str]] = {}
        for commit in commits.commits:
            participants.setdefault(commit.model_id, set()).add(commit.participant)
        ours: dict[str, set[str]] = {}
        for judged in votes.judged:
            if any(vote.validator == self._participant for vote in judged.votes):
                ours.setdefault(judged.model_id, set()).add(judged.participant)
        return {model: Votes(len(all_of_it), len(ours.get(model, ()))) for model, all_of_it in participants.items()}
