"""What is found wrong with the database, the chain, and what is sent to it."""

from __future__ import annotations

from typing import Any

from tests.unit.diagnosis.statuses import NO_CHAIN, CheckTestCase


class StorageTests(CheckTestCase):
    """The database and its disk."""

    def test_nothing_is_wrong(self) -> None:
        self.assertEqual(self.found(), [])

    def test_states(self) -> None:
        full = self.one("database-full", database__state="full", database__reason="no room", database__since=7.0)
        self.assertEqual((full.problem, full.since), ("the database is full: no room", 7.0))
        self.assertIn("make room", full.to_do)
        self.assertIn("start anew", self.one("database-broken", database__state="broken").to_do)
        self.assertIn("other program", self.one("database-locked", database__state="locked").to_do)

    def test_a_disk_that_hangs(self) -> None:
        self.assertEqual(self.found(database__writing_seconds=10.0), [])
        finding = self.one("disk-hangs", database__writing_seconds=12.3)
        self.assertIn("12 s", finding.problem)
        self.assertIn("/x.db", finding.to_do)

    def test_a_disk_that_is_slow(self) -> None:
        for seconds in (None, 1.0):
            self.assertEqual(self.found(database__commit_p99_seconds=seconds), [])
        finding = self.one("disk-slow", database__commit_p99_seconds=1.25)
        self.assertIn("1 of 100 commits takes 1.2 s or more", finding.problem)
        self.assertIn("/x.db", finding.to_do)


class ChainTests(CheckTestCase):
    """Whether there is a chain that takes what is sent."""

    def test_troubles(self) -> None:
        for trouble, problem_id, reason, to_do in (
            ("halted", "chain-halted", "halted: no block for 12 s", "second one"),
            ("unreachable", "chain-unreachable", "not reachable: c:26657: refused", "can be reached from here"),
            ("not_asked", "chain-unreachable", "not asked yet", "can be reached from here"),
            ("catching_up", "chain-catching-up", "catching up", "has caught up"),
            ("other_chain", "chain-other", "another one: c:26657: chain id x", "the right network"),
            ("moved", "chain-moved-to-v2", "the network has moved to PoC v2: …", "poc_v2.relay"),
            ("turn", "sending-stopped", "the database is not open", "tries again"),
            ("broken", "sending-stopped", "Submitter broke, see the log: x", "look into the log"),
        ):
            finding = self.one(problem_id, chain__trouble=trouble, chain__reason=reason, chain__state="waiting")
            self.assertEqual(finding.problem, f"nothing is sent: {reason}")
            self.assertIn(to_do, finding.to_do)
            self.assertEqual(finding.for_seconds, 10.0 if trouble in ("turn", "not_asked") else 0.0)

    def test_no_chain_means_that_nodes_are_not_driven_either(self) -> None:
        found = self.found(chain=NO_CHAIN)
        self.assertEqual([finding.id for finding in found], ["chain-not-configured", "not-driving"])

    def test_chain_nodes(self) -> None:
        for standing, problem_id, to_do in (
            ("failing", "chain-node-failing", "runs"),
            ("behind", "chain-node-behind", "behind"),
            ("other_chain", "chain-node-other", "take it out"),
        ):
            nodes = [{"name": f"{name}:26657", "standing": standing, "last_problem": "why"} for name in "cd"]
            one, other = self.found(chain__nodes=nodes)
            self.assertEqual(one.id, problem_id)
            self.assertIn("c:26657", one.problem)
            self.assertIn(to_do, one.to_do)
            self.assertNotEqual(one.key, other.key)

    def test_clock(self) -> None:
        for offset in (None, 5.0, -5.0):
            self.assertEqual(self.found(chain__clock_offset_seconds=offset), [])
        self.assertIn("5.1 s ahead of", self.one("clock-off", chain__clock_offset_seconds=5.1).problem)
        self.assertIn("60 s behind", self.one("clock-off", chain__clock_offset_seconds=-60.0).problem)


class SendingTests(CheckTestCase):
    """What the chain refuses, what is late, and what was lost."""

    def test_held_kinds(self) -> None:
        for cause, problem_id, to_do in (
            ("grant", "grant-missing", "have gonka1participant run: inferenced tx inference grant-ml-ops-permissions"),
            ("key", "key-not-participants", "gonka1signer signs for gonka1participant"),
            ("account", "account-missing", "to gonka1signer"),
            ("funds", "funds-missing", "send coins to gonka1signer"),
            ("fees", "fees-wanted", "minimum-gas-prices"),
            ("gas", "gas-limit-too-high", "chain_node.gas_limit"),
            ("other", "messages-held", "the chain's words"),
        ):
            finding = self.one(
                problem_id,
                chain__held={"generated": "authz 2: the chain's words"},
                chain__causes={"generated": cause},
                chain__trouble="held",
                chain__reason="authz 2: the chain's words",
                chain__problem="authz 2: the chain's words",
            )
            self.assertEqual(finding.problem, "generated messages are held: authz 2: the chain's words")
            self.assertIn(to_do, finding.to_do)

    def test_what_to_do_is_not_said_twice(self) -> None:
        words = (
            "sdk 9: fee payer does not exist; create the account gonka1signer: send the smallest amount of coins to it"
        )
        held = {"chain__held": {"seed": words}, "chain__trouble": "held"}
        (finding,) = self.found(**held, chain__causes={"seed": "account"})
        self.assertEqual(finding.problem, "seed messages are held: sdk 9: fee payer does not exist")
        (finding,) = self.found(**held, chain__causes={"seed": "other"})
        self.assertIn("create the account", finding.problem)

    def test_each_held_kind_is_a_problem_of_its_own(self) -> None:
        held = {"generated": "why", "seed": "why"}
        one, other = self.found(chain__held=held, chain__causes=dict.fromkeys(held, "grant"), chain__trouble="held")
        self.assertNotEqual(one.key, other.key)

    def test_a_grant_that_expires(self) -> None:
        finding = self.one("grant-expires", chain__grant_expires="2026-12-24")
        self.assertEqual(finding.problem, "a grant expires on 2026-12-24")
        self.assertIn("before that day, have gonka1participant run: inferenced tx", finding.to_do)

    def test_transactions_that_get_into_no_block(self) -> None:
        finding = self.one("sending-fails", chain__problem="mempool is full")
        self.assertEqual(finding.problem, "transactions do not get into a block: mempool is full")
        self.assertEqual(finding.for_seconds, 30.0)
        # What went wrong last says nothing while nothing is under way.
        self.assertEqual(self.found(chain__problem="mempool is full", chain__transactions_in_flight=0), [])

    def test_what_is_late(self) -> None:
        late = [{"stage_height": 1000, "kind": "generated", "blocks_left": 3}]
        finding = self.one("messages-late", chain__poc__stage__late=late)
        self.assertEqual(finding.problem, "generated messages of stage 1000 wait, 3 blocks are left")
        seed = [{"stage_height": 1000, "kind": "seed", "blocks_left": 30}]
        finding = self.one("messages-late", chain__poc__stage__late=seed)
        self.assertIn("without its seed the stage counts nothing", finding.problem)

    def loss(self, **changes: Any) -> dict[str, Any]:
        loss = {"height": 1000, "kind": "generated", "state": "failed", "is_damaged": False, "messages": 3}
        return loss | {"reason": "inference 1145: no"} | changes

    def test_what_failed(self) -> None:
        finding = self.one("messages-failed", losses=[self.loss()])
        self.assertEqual(finding.problem, "3 generated messages of stage 1000 failed: inference 1145: no")
        self.assertEqual(finding.severity, "critical")
        self.assertIn("/retry", finding.to_do)
        for changes in ({"height": 900}, {"kind": "validated"}):
            finding = self.one("messages-failed", losses=[self.loss(**changes)])
            self.assertEqual(finding.severity, "warning")
            self.assertIn("their window has ended", finding.to_do)

    def test_what_expired(self) -> None:
        finding = self.one("messages-expired", losses=[self.loss(state="expired", height=900, reason="its window")])
        self.assertEqual(finding.problem, "3 generated messages of stage 900 expired: its window")

    def test_what_is_damaged(self) -> None:
        finding = self.one("messages-damaged", losses=[self.loss(is_damaged=True, reason="damaged on disk")])
        self.assertIn("look at the disk", finding.to_do)

    def test_each_stage_and_kind_is_a_problem_of_its_own(self) -> None:
        losses = [self.loss(), self.loss(height=900), self.loss(kind="validated")]
        self.assertEqual(len({finding.key for finding in self.found(losses=losses)}), 3)
