"""What people can mend holds its kind back, and nothing else."""

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.grants import grant_command
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import Kind
from dapi.phases.poc_version import PocVersion
from dapi.submission.problems import HoldCause, Problems
from tests.logs import log_of

GRANT = f"the participant has to run: {grant_command('signer')}"
MAY_SIGN = "look whether signer may sign for participant (chain_node.account_public_key, the key)"


class ProblemsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = log_of(self)
        self.problems = Problems("signer", "participant", PocVersion(ChainRpc(Clock(), ["http://127.0.0.1:1"])))

    def test_held_and_open_again(self) -> None:
        self.assertEqual(self.problems.open_kinds(), frozenset(Kind))
        for _ in range(2):
            text = self.problems.hold(Kind.SEED, "authz", 2, "authorization not found")
        self.assertEqual(self.problems.open_kinds(), frozenset(Kind) - {Kind.SEED})
        line = f"seed messages are held until this is mended: {text}"
        self.assertEqual(self.log.lines(LogLevel.error), [line])
        for _ in range(2):
            self.problems.release(Kind.SEED)
            self.assertEqual(self.problems.open_kinds(), frozenset(Kind))
            self.assertEqual(self.log.lines(LogLevel.info), ["seed messages are sent again"])

    def test_one_is_sent_in_each_block_to_find_out(self) -> None:
        self.assertEqual(self.problems.kinds_to_probe(10), [])
        self.problems.hold_back(Kind.SEED, "no grant", HoldCause.GRANT)
        for height in (10, 11):
            self.assertEqual(self.problems.kinds_to_probe(height), [Kind.SEED])
            self.problems.probed(Kind.SEED, height)
            self.assertEqual(self.problems.kinds_to_probe(height), [])
        # What is held anew is tried anew.
        self.problems.release(Kind.SEED)
        self.problems.hold_back(Kind.SEED, "no grant", HoldCause.GRANT)
        # From the chain's first block on.
        self.assertEqual(self.problems.kinds_to_probe(1), [Kind.SEED])

    def test_what_mends_it(self) -> None:
        for codespace, code, cause, mend in (
            ("authz", 2, HoldCause.GRANT, GRANT),
            ("authz", 6, HoldCause.GRANT, GRANT),
            ("sdk", 4, HoldCause.KEY, MAY_SIGN),
            ("sdk", 5, HoldCause.FUNDS, "send coins to signer, which pays"),
            ("sdk", 8, HoldCause.KEY, "look whether the signing key is the one of its account"),
            ("sdk", 9, HoldCause.ACCOUNT, "create the account signer: send the smallest amount of coins to it"),
            ("sdk", 13, HoldCause.FEES, "use a chain node (chain_node.url) without minimum-gas-prices"),
            ("sdk", 41, HoldCause.GAS, "set chain_node.gas_limit to at most what the chain allows in a block"),
        ):
            text = self.problems.hold(Kind.GENERATED, codespace, code, "no")
            self.assertEqual(text, f"{codespace} {code}: no; {mend}")
            self.assertIs(self.problems.causes[Kind.GENERATED], cause)
        self.assertEqual(
            self.problems.hold(Kind.GENERATED, "rpc", -32601, "no such method"), "rpc -32601: no such method"
        )
        self.assertIs(self.problems.causes[Kind.GENERATED], HoldCause.OTHER)
        self.assertEqual(self.problems.hold(Kind.GENERATED, "sdk", 50, "no"), "sdk 50: no")
        self.assertIs(self.problems.causes[Kind.GENERATED], HoldCause.OTHER)
        self.problems.release(Kind.GENERATED)
        self.assertEqual(self.problems.causes, {})

    def test_a_problem_is_logged_once_until_it_is_over(self) -> None:
        for number in range(3):
            self.problems.record(ChainUnavailableError(f"mempool is full: {number}"))
        self.assertEqual(self.log.warnings(), ["trying again in a few seconds: mempool is full: 0"])
        self.assertEqual(self.problems.last, "mempool is full: 2")
        self.problems.confirmed()
        self.assertIs(self.problems.last, None)
        self.problems.record(ChainUnavailableError("mempool is full: 3"))
        self.assertEqual(len(self.log.warnings("trying again")), 2)

    def test_a_network_that_has_moved(self) -> None:
        for _ in range(2):
            self.problems.record(ChainRefusedError(1161, "inference", "poc_v2_enabled"))
        self.assertIn("PoC v2", str(self.problems.moved_reason))
        self.assertIn("(inference 1161: poc_v2_enabled)", str(self.problems.moved_reason))
        self.assertEqual(len(self.log.lines(LogLevel.critical)), 1)

    def test_one_that_does_not_know_the_message_any_more_has_moved_too(self) -> None:
        text = "unable to resolve type URL /inference.inference.MsgSubmitPocBatch: tx parse error"
        self.problems.record(ChainRefusedError(2, "sdk", text))
        self.assertIn(text, str(self.problems.moved_reason))

    def test_other_errors_do_not_say_that_it_has_moved(self) -> None:
        for error in (ChainRefusedError(1155, "inference", "blocked"), ChainUnavailableError("inference 1161")):
            self.problems.record(error)
            self.assertEqual((self.problems.last, self.problems.moved_reason), (str(error), None))
