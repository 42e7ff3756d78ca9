"""With what transactions are signed: the number of the account, and the gas that the chain allows."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.keyring import SigningKey
from dapi.chain.transactions import TransactionSigner
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages.cosmos_pb2 import AuthInfo, TxRaw
from dapi.submission.signing import Signing
from tests.logs import log_of
from tests.unit.submission.submitter_case import FakeRpc, status_at

T = TypeVar("T")

KEY = SigningKey(b"\7" * 32)
PARTICIPANT = SigningKey(b"\1" * 32).address
MESSAGES = [("/inference.inference.MsgSubmitPocBatch", b"\x18\x0a")]
TOO_MUCH = "tx gas limit {} exceeds block max gas {}"


class SigningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = log_of(self)
        self.chain = FakeRpc(Clock())
        self.chain.head = status_at(10, chain_id="gonka-9")
        self.chain.account_number = 41
        self.signing = Signing(self.chain, KEY, PARTICIPANT, 1000)

    def run_to_end(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def lower(self, refused: int, allowed: int) -> bool:
        return self.run_to_end(self.signing.lower_gas_limit(TOO_MUCH.format(refused, allowed)))

    def gas(self) -> int:
        """The gas limit of what is signed now."""
        assert self.signing.signer is not None
        raw = TxRaw.FromString(self.signing.signer.sign(MESSAGES, 7).raw)
        return AuthInfo.FromString(raw.auth_info_bytes).fee.gas_limit

    def test_it_signs_for_the_chain_and_the_number_that_it_has_of_the_account(self) -> None:
        self.assertEqual((self.signing.signer, self.signing.account_number), (None, None))
        self.run_to_end(self.signing.refresh())
        assert self.signing.signer is not None
        expected = TransactionSigner(KEY, "gonka-9", 41, PARTICIPANT, 1000)
        self.assertEqual(self.signing.signer.sign(MESSAGES, 7), expected.sign(MESSAGES, 7))
        self.assertEqual((self.signing.account_number, self.chain.accounts_asked), (41, [KEY.address]))

    def test_a_key_is_granted_when_it_is_not_the_participants(self) -> None:
        self.assertTrue(self.signing.is_granted)
        self.assertFalse(Signing(self.chain, KEY, KEY.address).is_granted)

    def test_an_account_that_is_not_there_is_waited_for_and_the_error_says_what_to_do(self) -> None:
        self.chain.account_error = ChainRefusedError(5, "sdk", "account not found")
        failure = self.failureResultOf(Deferred.fromCoroutine(self.signing.refresh()), ChainUnavailableError)
        text = f"the signer's account {KEY.address}: account not found; if it does not exist, send coins to it"
        self.assertEqual(str(failure.value), text)
        self.assertIsNone(self.signing.signer)

    def test_a_network_that_has_moved_is_not_taken_for_an_account_that_is_missing(self) -> None:
        self.chain.account_error = ChainRefusedError(1161, "inference", "poc_v2_enabled")
        failure = self.failureResultOf(Deferred.fromCoroutine(self.signing.refresh()), ChainRefusedError)
        self.assertIs(failure.value, self.chain.account_error)

    def test_the_gas_limit_becomes_what_the_chain_allows(self) -> None:
        self.assertTrue(self.lower(1000, 300))
        self.assertEqual((self.signing.gas_limit, self.gas()), (300, 300))
        line = "the chain allows 300 gas in a block: transactions have this limit now, not 1000"
        self.assertEqual(self.log.warnings(), [line])
        self.assertTrue(self.lower(300, 299))
        self.assertEqual(self.gas(), 299)

    def test_one_that_was_signed_before_goes_again_without_another_change(self) -> None:
        self.lower(1000, 300)
        # The chain allows more again, or just as much: the limit stays, and is below what was refused.
        for allowed in (300, 500):
            self.assertTrue(self.lower(1000, allowed))
        self.assertEqual((self.signing.gas_limit, len(self.log.warnings())), (300, 1))

    def test_the_limit_is_not_changed_by_a_refusal_that_makes_no_sense(self) -> None:
        for refused, allowed in ((1000, 0), (1000, 1000), (1000, 2000), (0, 0)):
            self.assertFalse(self.lower(refused, allowed))
        for log in ("no", "tx gas limit x exceeds block max gas 7"):
            self.assertFalse(self.run_to_end(self.signing.lower_gas_limit(log)))
        self.assertEqual((self.signing.gas_limit, self.signing.signer), (1000, None))

    def test_one_gas_is_a_limit_too(self) -> None:
        self.assertTrue(self.lower(1000, 1))
        self.assertEqual(self.signing.gas_limit, 1)

    def test_what_was_refused_with_our_own_limit_does_not_go_again(self) -> None:
        """As where two nodes of the chain do not allow the same: it would be refused for ever."""
        self.lower(1000, 300)
        self.assertFalse(self.lower(300, 300))
