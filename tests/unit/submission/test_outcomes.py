"""Each answer of the chain has one meaning, for the messages that it is about."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.submission.outcomes import Outcome, judge, messages_blamed
from dapi.submission.rows import Message


class JudgeTests(SynchronousTestCase):
    def test_codes(self) -> None:
        for code, codespace, expected in (
            (0, "", Outcome.CONFIRMED),
            (1108, "inference", Outcome.NEXT_BLOCK),
            (1128, "inference", Outcome.NEXT_BLOCK),
            (1107, "inference", Outcome.FINAL),
            (1145, "inference", Outcome.FINAL),
            (1155, "inference", Outcome.FINAL),
            (1160, "inference", Outcome.DUPLICATE),
            (1161, "inference", Outcome.MOVED),
            (4, "sdk", Outcome.SIGNATURE),
            (9, "sdk", Outcome.SIGNATURE),
            (18, "sdk", Outcome.FINAL),
            (30, "sdk", Outcome.SIGN_AGAIN),
            (32, "sdk", Outcome.SIGN_AGAIN),
            (42, "sdk", Outcome.SIGN_AGAIN),
            (2, "authz", Outcome.FINAL),
            (1108, "other", Outcome.FINAL),
        ):
            self.assertIs(judge(code, codespace, "words"), expected, (code, codespace))

    def test_a_timestamp_that_cannot_be_used_says_nothing_about_the_messages(self) -> None:
        for words in (
            "failed to add unordered nonce: already used timeout 7 for address g: invalid request",
            "unordered transaction has a timeout_timestamp that has already passed: invalid request",
            "unordered tx ttl exceeds 10m0s: invalid request",
        ):
            self.assertIs(judge(18, "sdk", words), Outcome.SIGN_AGAIN)


OLD, NEW = Message(1, Kind.GENERATED, 10, 1), Message(2, Kind.GENERATED, 10, 1)
VERDICT, YOUNG = Message(3, Kind.VALIDATED, 10, 1), Message(4, Kind.GENERATED, 20, 1)


def log(index: int) -> str:
    return f"failed to execute message; message index: {index}: no"


class MeantTests(SynchronousTestCase):
    def test_the_only_one(self) -> None:
        for words in ("no", log(0), log(3)):
            self.assertEqual(messages_blamed([OLD], 1145, "inference", words, are_wrapped=False), [OLD])

    def test_by_its_index(self) -> None:
        messages = [OLD, NEW, VERDICT]
        self.assertEqual(messages_blamed(messages, 1145, "inference", log(1), are_wrapped=False), [NEW])
        self.assertEqual(messages_blamed(messages, 1160, "inference", log(2), are_wrapped=False), [VERDICT])

    def test_not_told(self) -> None:
        for words, are_wrapped in (("out of gas", False), (log(7), False), (log(0), True)):
            self.assertIs(messages_blamed([OLD, NEW], 1145, "inference", words, are_wrapped=are_wrapped), None)

    def test_a_window_is_that_of_all_of_its_stage_and_kind(self) -> None:
        messages = [OLD, NEW, VERDICT, YOUNG]
        for code in (1107, 1108, 1128):
            self.assertEqual(messages_blamed(messages, code, "inference", log(0), are_wrapped=False), [OLD, NEW])
            self.assertEqual(messages_blamed(messages, code, "inference", log(3), are_wrapped=False), [YOUNG])
            self.assertIs(messages_blamed(messages, code, "inference", log(0), are_wrapped=True), None)
            self.assertEqual(messages_blamed([OLD, NEW], code, "inference", log(0), are_wrapped=True), [OLD, NEW])
        self.assertEqual(messages_blamed([OLD, NEW], 1108, "other", log(0), are_wrapped=False), [OLD])
