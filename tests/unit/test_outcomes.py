"""Each answer of the chain has one meaning."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.outcomes import Outcome, culprit, judge


class JudgeTests(SynchronousTestCase):
    def test_codes(self) -> None:
        for code, codespace, expected in (
            (0, "", Outcome.DONE),
            (1108, "inference", Outcome.NEXT_BLOCK),
            (1128, "inference", Outcome.NEXT_BLOCK),
            (1107, "inference", Outcome.FINAL),
            (1145, "inference", Outcome.FINAL),
            (1155, "inference", Outcome.FINAL),
            (1160, "inference", Outcome.SENT_BEFORE),
            (1161, "inference", Outcome.MOVED),
            (4, "sdk", Outcome.FINAL),
            (18, "sdk", Outcome.FINAL),
            (30, "sdk", Outcome.SIGN_AGAIN),
            (42, "sdk", Outcome.SIGN_AGAIN),
            (2, "authz", Outcome.FINAL),
            (1108, "other", Outcome.FINAL),
        ):
            self.assertIs(judge(code, codespace), expected, (code, codespace))

    def test_culprit(self) -> None:
        self.assertEqual(culprit("failed to execute message; message index: 12: too late"), 12)
        self.assertIs(culprit("out of gas"), None)
