"""Each answer of the chain has one meaning, for the messages that it is about."""

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Kind
from dapi.submission.outcomes import Outcome, half_of, judge, limit_after_neighbour, messages_blamed
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
            (1163, "inference", Outcome.MOVED),
            (4, "sdk", Outcome.SIGNATURE),
            (9, "sdk", Outcome.SIGNATURE),
            (18, "sdk", Outcome.FINAL),
            (30, "sdk", Outcome.SIGN_AGAIN),
            (32, "sdk", Outcome.SIGN_AGAIN),
            (42, "sdk", Outcome.SIGN_AGAIN),
            (2, "authz", Outcome.PROBLEM),
            (6, "authz", Outcome.PROBLEM),
            (13, "sdk", Outcome.PROBLEM),
            (41, "sdk", Outcome.GAS_LIMIT),
            (2, "sdk", Outcome.TOO_MUCH),
            (11, "sdk", Outcome.TOO_MUCH),
            (21, "sdk", Outcome.TOO_LARGE),
            (21, "rpc", Outcome.TOO_LARGE),
            (-32601, "rpc", Outcome.PROBLEM),
            (1108, "other", Outcome.FINAL),
        ):
            self.assertIs(judge(code, codespace, "words"), expected, (code, codespace))

    def test_a_chain_that_does_not_know_the_message_any_more_has_moved(self) -> None:
        # docs/protocol/chain.md, 'Newer chains'.
        url = "/inference.inference.MsgSubmitPocValidation"
        text = f"unable to resolve type URL {url}: tx parse error"
        for words in (text, f"message index: 0: {text}"):
            self.assertIs(judge(2, "sdk", words), Outcome.MOVED)
        for code, codespace, text in (
            (2, "sdk", "unable to resolve type URL /cosmos.authz.v1beta1.MsgExec: tx parse error"),
            (11, "sdk", f"unable to resolve type URL {url}"),
            (2, "other", f"unable to resolve type URL {url}"),
        ):
            self.assertIsNot(judge(code, codespace, text), Outcome.MOVED)

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
            self.assertEqual(messages_blamed([OLD], 1145, "inference", words, is_indexed=True), [OLD])

    def test_by_its_index(self) -> None:
        messages = [OLD, NEW, VERDICT]
        self.assertEqual(messages_blamed(messages, 1145, "inference", log(1), is_indexed=True), [NEW])
        self.assertEqual(messages_blamed(messages, 1160, "inference", log(2), is_indexed=True), [VERDICT])

    def test_not_told(self) -> None:
        for words, is_indexed in (("out of gas", True), (log(7), True), (log(0), False)):
            self.assertIs(messages_blamed([OLD, NEW], 1145, "inference", words, is_indexed=is_indexed), None)

    def test_a_window_is_that_of_all_of_its_stage_and_kind(self) -> None:
        for code in (1107, 1108, 1128):
            self.assertEqual(messages_blamed([OLD, NEW], code, "inference", log(0), is_indexed=False), [OLD, NEW])
        self.assertEqual(messages_blamed([OLD, NEW], 1108, "other", log(0), is_indexed=True), [OLD])

    def test_an_earlier_version_mixed_them(self) -> None:
        self.assertIs(messages_blamed([OLD, VERDICT, YOUNG], 1108, "inference", log(0), is_indexed=False), None)


class LimitTests(SynchronousTestCase):
    """Who may share the next transaction with whom."""

    def test_half_of_them(self) -> None:
        for number, half in ((1, 1), (2, 1), (3, 1), (4, 2), (500, 250)):
            self.assertEqual(half_of([OLD] * number), half)

    def test_a_few_neighbours_of_one_that_failed_go_together_and_in_quarters_when_another_fails(self) -> None:
        self.assertEqual(limit_after_neighbour([OLD] * 10), 10)
        limited = msgspec.structs.replace(OLD, max_messages=10)
        self.assertEqual(limit_after_neighbour([limited] * 9), 2)
        self.assertEqual(limit_after_neighbour([limited] * 3), 1)

    def test_many_neighbours_go_in_quarters_at_once(self) -> None:
        self.assertEqual(limit_after_neighbour([OLD] * 199), 49)
        # Sixteen are few.
        self.assertEqual([limit_after_neighbour([OLD] * number) for number in (16, 17)], [16, 4])

    def test_however_many_of_200_fail_each_is_alone_in_the_fifth_block(self) -> None:
        number, blocks = 200, 1
        while number > 1:
            # The last one of each transaction fails.
            others = [OLD if blocks == 1 else msgspec.structs.replace(OLD, max_messages=number)] * (number - 1)
            number, blocks = limit_after_neighbour(others), blocks + 1
        self.assertLessEqual(blocks, 5)
