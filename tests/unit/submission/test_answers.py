"""A claim with code 0 is paid only if its answer says so, alone or inside a MsgExec."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.messages.cosmos_pb2 import Any, MsgExecResponse, TxMsgData
from dapi.messages.host_pb2 import MsgClaimRewardsResponse
from dapi.submission.answers import ClaimAnswer, amount_paid, claim_answers
from dapi.submission.rows import Message

CLAIM = Message(1, Kind.CLAIM, 50, 1)
SEED = Message(2, Kind.SEED, 50, 1)
PAID = MsgClaimRewardsResponse(amount=1_000_000, result="Rewards claimed successfully").SerializeToString()
REFUSED = MsgClaimRewardsResponse(result="Seed signature validation failed").SerializeToString()


def response(name: str, value: bytes) -> Any:
    return Any(type_url=f"/inference.inference.{name}Response", value=value)


def granted(*results: bytes) -> Any:
    value = MsgExecResponse(results=results).SerializeToString()
    return Any(type_url="/cosmos.authz.v1beta1.MsgExecResponse", value=value)


def data(*responses: Any) -> bytes:
    return TxMsgData(msg_responses=responses).SerializeToString()


class ClaimAnswerTests(SynchronousTestCase):
    def test_paid(self) -> None:
        (answer,) = claim_answers([CLAIM], data(response("MsgClaimRewards", PAID)))
        self.assertEqual(answer, ClaimAnswer(CLAIM, True, "paid 1000000: Rewards claimed successfully"))
        self.assertEqual(amount_paid(answer.reason), 1_000_000)

    def test_amount_0_is_not_paid(self) -> None:
        (answer,) = claim_answers([CLAIM], data(response("MsgClaimRewards", REFUSED)))
        self.assertEqual(answer, ClaimAnswer(CLAIM, False, "not paid: Seed signature validation failed"))
        self.assertIsNone(amount_paid(answer.reason))

    def test_among_others_it_is_found_by_its_place(self) -> None:
        messages, seed = [SEED, CLAIM], response("MsgSubmitSeed", b"")
        for encoded in (
            data(seed, response("MsgClaimRewards", REFUSED)),
            data(granted(b"", REFUSED)),
            data(granted(b""), granted(REFUSED)),
        ):
            (answer,) = claim_answers(messages, encoded)
            self.assertEqual((answer.claim, answer.is_paid), (CLAIM, False))

    def test_an_answer_that_cannot_be_read_says_nothing(self) -> None:
        for encoded in (b"", b"\xff", data(), data(response("MsgClaimRewards", b"\xff")), data(granted(b"", PAID))):
            self.assertEqual(claim_answers([CLAIM], encoded), [ClaimAnswer(CLAIM, True, None)])
        self.assertIsNone(amount_paid(None))

    def test_nobody_asks_for_the_answers_to_other_messages(self) -> None:
        self.assertEqual(claim_answers([SEED], b"\xff"), [])
