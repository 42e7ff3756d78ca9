"""What the submitter tells of itself: whether it sends, and why it does not."""

from __future__ import annotations

from twisted.internet.defer import fail

from dapi.chain.keyring import SigningKey
from dapi.chain.nodes import ChainTrouble
from dapi.errors import ChainRefusedError, StoreBusyError
from dapi.messages import Kind
from dapi.submission.problems import HoldCause
from dapi.submission.submitter import SendingTrouble
from tests.unit.submission.submitter_case import SubmitterTestCase

ADDRESS = SigningKey(b"\1" * 32).address
NO_FUNDS = "sdk 5: insufficient funds"


class StatusTests(SubmitterTestCase):
    def assert_state(self, state: str, reason: str | None, trouble: object) -> None:
        status = self.submitter.status()
        self.assertEqual((status["state"], status["reason"], status["trouble"]), (state, reason, trouble))

    def test_while_it_sends(self) -> None:
        self.assertEqual(
            self.submitter.status(),
            {
                "state": "submitting",
                "reason": None,
                "trouble": None,
                "held": {},
                "causes": {},
                "chain_id": "chain",
                "height": 10,
                "signer": ADDRESS,
                "participant": ADDRESS,
                "transactions_in_flight": 0,
                "bytes_in_flight": 0,
                "max_transactions": 32,
                "max_transaction_bytes": 700_000,
                "problem": None,
                "grant_expires": None,
            },
        )
        self.record(1)
        status = self.submitter.status()
        self.assertEqual(status["transactions_in_flight"], 1)
        self.assertIn(status["bytes_in_flight"], range(250, 700))

    def test_before_the_first_block(self) -> None:
        self.watcher.head = None
        status = self.submitter.status()
        self.assertEqual((status["chain_id"], status["height"]), (None, None))

    def test_before_the_first_turn_there_is_no_trouble(self) -> None:
        self.stop()
        self.watcher.head = None
        self.start_anew()
        self.settle()
        self.assert_state("submitting", None, None)

    def test_what_the_chain_says_of_the_key_names_the_key_and_the_participant(self) -> None:
        self.record(1)
        self.include(self.chain.sent[0], 11, 4, "sdk", "unauthorized")
        self.block(11)
        mend = f"look whether {ADDRESS} may sign for {ADDRESS} (chain_node.account_public_key, the key)"
        self.assert_state("held", f"sdk 4: unauthorized; {mend}", SendingTrouble.HELD)

    def test_what_is_held_names_the_key_that_has_to_be_mended(self) -> None:
        self.record(1)
        self.include(self.chain.sent[0], 11, 5, "sdk", "insufficient funds")
        self.block(11)
        reason = f"{NO_FUNDS}; send coins to {ADDRESS}, which pays"
        self.assert_state("held", reason, SendingTrouble.HELD)

    def test_kinds_that_are_held(self) -> None:
        problems = self.submitter._problems
        for kind in (Kind.SEED, Kind.GENERATED):
            problems.hold_back(kind, NO_FUNDS, HoldCause.FUNDS)
        # One problem is told once.
        self.assert_state("held", NO_FUNDS, SendingTrouble.HELD)
        problems.hold_back(Kind.CLAIM, "no grant", HoldCause.GRANT)
        self.assert_state("held", f"{NO_FUNDS}; no grant", SendingTrouble.HELD)
        status = self.submitter.status()
        self.assertEqual(status["held"], {"seed": NO_FUNDS, "generated": NO_FUNDS, "claim": "no grant"})
        self.assertEqual(status["causes"], {"seed": "funds", "generated": "funds", "claim": "grant"})

    def test_the_gravest_reason_is_told(self) -> None:
        """That the network has moved, then what dapi did wrong, the chain, the turn, and last what is held."""
        self.submitter._problems.hold_back(Kind.SEED, "no grant", HoldCause.GRANT)
        self.assert_state("held", "no grant", SendingTrouble.HELD)
        self.patch(self.submissions, "begin", lambda *args: fail(StoreBusyError("disk full")))
        self.record(1)
        self.assert_state("waiting", "disk full", SendingTrouble.TURN)
        self.watcher.problem, self.watcher.trouble = "no new block", ChainTrouble.HALTED
        self.assert_state("waiting", "no new block", ChainTrouble.HALTED)
        self.submitter.loop_problem = "Submitter broke"
        self.assert_state("waiting", "Submitter broke", SendingTrouble.BROKEN)
        self.poc_version.refused("deprecated")
        self.assert_state("moved", self.poc_version.moved_reason, SendingTrouble.MOVED)

    def test_a_turn_that_succeeds_ends_the_trouble_and_what_went_wrong_last_is_still_told(self) -> None:
        busy = self.patch(self.submissions, "begin", lambda *args: fail(StoreBusyError("disk full")))
        self.record(1)
        self.assertEqual(self.submitter.status()["problem"], "disk full")
        busy.restore()
        self.pass_time(6)
        self.assert_state("submitting", None, None)
        self.assertEqual(self.submitter.status()["problem"], "disk full")
        self.include(self.chain.sent[0], 11)
        self.block(11)
        self.assertIs(self.submitter.status()["problem"], None)

    def test_what_the_chains_nodes_say_in_place_of_their_status(self) -> None:
        self.watcher.status_error = ChainRefusedError(-32601, "rpc", "no such method")
        self.block(11)
        self.assertEqual(self.submitter.status()["problem"], "rpc -32601: no such method")
        self.watcher.status_error = ChainRefusedError(1161, "inference", "HTTP 503: poc_v2")
        self.watcher.head = None
        self.watcher.ring()
        self.settle()
        self.assertEqual(self.submitter.status()["state"], "moved")
