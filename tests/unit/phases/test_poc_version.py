"""Which proof of compute the network runs: what the chain says, what it refuses, and what is believed of both."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import QueryResult
from dapi.errors import ChainUnavailableError
from dapi.messages import epochs_pb2
from dapi.phases.phases import EpochInfo, EpochParameters
from dapi.phases.poc_version import TRANSITIONS, PocVersion, PocVersionState
from tests.logs import log_of

_S = PocVersionState


class EpochRpc(ChainRpc):
    """A chain that says whether it runs v2, or does not answer."""

    def __init__(self) -> None:
        super().__init__(Clock(), ["http://127.0.0.1:1"])
        self.is_poc_v2 = False
        self.is_away = False
        self.asked: list[int] = []

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        assert height is not None
        self.asked.append(height)
        if self.is_away:
            return fail(ChainUnavailableError("no answer"))
        info = epochs_pb2.QueryEpochInfoResponse(block_height=height)
        info.params.poc_params.poc_v2_enabled = self.is_poc_v2
        return succeed(QueryResult(info.SerializeToString(), height))


def said(height: int, *, is_poc_v2: bool = False) -> EpochInfo:
    return EpochInfo(height, 1, 1, EpochParameters(40, 10, 2, 2, 6), 200, None, is_poc_v2)


class PocVersionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = log_of(self)
        self.rpc = EpochRpc()
        self.version = PocVersion(self.rpc)
        self.changes: list[PocVersionState] = []
        self.version.observe(lambda: self.changes.append(self.version.state))

    def ask(self, height: int) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.version.ask(height)))

    def test_each_transition_and_no_other(self) -> None:
        to_v1: Callable[[], object] = lambda: self.version.learn(said(1000))  # noqa: E731
        to_v2: Callable[[], object] = lambda: self.version.learn(said(1000, is_poc_v2=True))  # noqa: E731
        refused: Callable[[], object] = lambda: self.version.refused("1161")  # noqa: E731
        for state in PocVersionState:
            for goal, step in ((_S.V1, to_v1), (_S.V2, to_v2), (_S.V2, refused)):
                self.version = PocVersion(self.rpc)
                self.version.state = state
                step()
                self.assertIs(self.version.state, goal)
                self.assertTrue(goal is state or goal in TRANSITIONS[state])
            for goal in set(PocVersionState) - TRANSITIONS[state]:
                self.version.state = state
                with self.assertRaisesRegex(RuntimeError, "PoC's version"):
                    self.version._enter(goal, None)

    def test_the_chain_is_asked_at_first_and_then_now_and_then(self) -> None:
        self.rpc.is_away = True
        self.failureResultOf(Deferred.fromCoroutine(self.version.ask(10)), ChainUnavailableError)
        self.assertFalse(self.version.is_v1)
        self.rpc.is_away = False
        for height in range(10, 30):
            self.ask(height)
        self.assertEqual(self.rpc.asked, [10, 10, 20])
        self.assertTrue(self.version.is_v1)
        # Somebody else has asked meanwhile.
        self.version.learn(said(29))
        self.ask(30)
        self.assertEqual(len(self.rpc.asked), 3)
        self.rpc.is_away = True
        self.ask(39)
        self.assertTrue(self.version.is_v1)
        self.assertEqual(
            self.log.lines(LogLevel.info, "PoC v1"), ["whether the network runs PoC v1 is not known anew: no answer"]
        )

    def test_v2_is_one_sentence_that_says_what_to_set_and_no_latch(self) -> None:
        self.assertIsNone(self.version.moved_reason)
        self.rpc.is_poc_v2 = True
        for height in range(10, 13):
            self.ask(height)
        self.assertEqual(self.rpc.asked, [10, 11, 12])
        reason = str(self.version.moved_reason)
        self.assertEqual(self.log.lines(LogLevel.critical), [reason])
        self.assertIn("poc.follow_chain: false", reason)
        self.assertIn("(the chain's parameters say so at block 10)", reason)
        self.assertNotIn("\n", reason)
        self.rpc.is_poc_v2 = False
        self.ask(13)
        self.assertIs(self.version.moved_reason, None)
        self.assertEqual(self.changes, [_S.V2, _S.V1])
        self.assertEqual(
            self.log.warnings(), ["the network runs PoC v1 again: dapi gives commands and sends messages again"]
        )

    def test_a_refusal_counts_at_once_and_the_word_of_before_does_not_undo_it(self) -> None:
        self.ask(10)
        self.version.refused("inference 1161: deprecated")
        self.assertIn("1161", str(self.version.moved_reason))
        self.version.learn(said(10))
        self.version.learn(said(11))
        self.assertFalse(self.version.is_v1)
        self.version.learn(said(12))
        self.assertTrue(self.version.is_v1)

    def test_a_chain_that_contradicts_itself_is_believed_later_each_time(self) -> None:
        height, waits = 10, []
        for _ in range(12):
            self.version.learn(said(height))
            self.assertTrue(self.version.is_v1)
            self.version.refused("inference 1161: deprecated")
            self.version.refused("inference 1161: deprecated")
            begin = height
            while not self.version.is_v1:
                height += 1
                self.version.learn(said(height))
            waits.append(height - begin)
        self.assertEqual(waits, [2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360, 360])
        # Once its parameters say v2, they are what counts.
        self.version.learn(said(height, is_poc_v2=True))
        self.version.learn(said(height + 1))
        self.assertTrue(self.version.is_v1)

    def test_a_chain_that_began_anew_is_believed_at_once(self) -> None:
        self.ask(5000)
        self.version.refused("inference 1161: deprecated")
        # No more than a word that comes late.
        self.version.learn(said(4990))
        self.assertFalse(self.version.is_v1)
        self.version.learn(said(4989))
        self.assertTrue(self.version.is_v1)

    def test_of_two_words_of_one_block_the_later_counts(self) -> None:
        self.version.learn(said(10))
        self.version.learn(said(10, is_poc_v2=True))
        self.assertIs(self.version.state, _S.V2)
