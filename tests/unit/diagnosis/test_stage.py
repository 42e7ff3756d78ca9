"""What is found wrong in a stage, and with what a host does to be paid."""

from __future__ import annotations

from typing import Any

from dapi.diagnosis.problem import Finding
from tests.unit.diagnosis.statuses import HOST, STAGE, VALIDATION, CheckTestCase


class StageTests(CheckTestCase):
    """Phases, seed, validation, batches that will not count."""

    def test_nodes_that_are_not_driven(self) -> None:
        finding = self.one("not-driving", chain__poc=None)
        self.assertIn("poc.follow_chain is false", finding.problem)

    def test_phases_that_are_not_followed(self) -> None:
        finding = self.one("phases-not-followed", chain__poc__problem="x failed")
        self.assertIn("x failed", finding.problem)
        # The chain's own problem is told once.
        halted = "halted: no block for 12 s"
        found = self.found(chain__poc__problem=halted, chain__reason=halted, chain__trouble="halted")
        self.assertEqual([finding.id for finding in found], ["chain-halted"])

    def test_a_seed_that_is_not_stored(self) -> None:
        finding = self.one("seed-not-stored", chain__poc__stage__seed_problem="the seed of epoch 2 is not kept yet: no")
        self.assertIn("the seed of epoch 2 is not kept yet", finding.problem)
        self.assertIn("make room", finding.to_do)

    def kept(self, problem_id: str, **changes: Any) -> Finding:
        kept = {"height": 1000, "node_id": "a", "kind": "generated", "messages": 7, "has_others_nonces": False}
        return self.one(problem_id, chain__poc__not_of_their_stage__kept=[kept | changes])

    def test_batches_that_are_kept_and_not_sent(self) -> None:
        for height, severity, said in (
            (1000, "critical", "their block hash or public key is not that of stage 1000"),
            (900, "warning", "their block hash or public key is not that of stage 900"),
            (None, "warning", "the chain has told of no stage with their height"),
        ):
            finding = self.kept("batches-not-of-stage", height=height)
            self.assertEqual(finding.problem, f"a: 7 messages are kept and not sent: {said}")
            self.assertEqual((finding.severity, finding.node_id), (severity, "a"))
        finding = self.kept("batches-not-of-stage", node_id=None)
        self.assertTrue(finding.problem.startswith("HTTP callbacks: 7"))

    def test_batches_with_the_nonces_of_other_nodes(self) -> None:
        finding = self.kept("nonces-of-others", has_others_nonces=True)
        told = "a: 7 messages are kept and not sent: their nonces are those of other nodes"
        self.assertEqual((finding.problem, finding.severity), (told, "critical"))

    def test_verdicts_that_nobody_asked_for(self) -> None:
        finding = self.kept("verdicts-not-asked-for", kind="validated")
        self.assertIn("verdicts that dapi did not ask the node for in stage 1000", finding.problem)
        self.assertEqual(finding.severity, "warning")

    def test_between_two_stages_nothing_is_lost_by_what_is_kept(self) -> None:
        kept = {"height": None, "node_id": "a", "kind": "generated", "messages": 1, "has_others_nonces": False}
        stage = STAGE | {"height": None, "open_kinds": []}
        found = self.found(chain__poc__stage=stage, chain__poc__not_of_their_stage={"kept": [kept]})
        self.assertEqual([finding.severity for finding in found], ["warning"])

    def test_nodes_that_stay_in_inference_are_not_known(self) -> None:
        finding = self.one("preserved-unknown", chain__poc__stage__preserved_problem="/query: no answer")
        self.assertIn("stage 1000: which nodes stay in inference is not known, so all take part: /q", finding.problem)

    def test_an_id_that_another_participants_node_has(self) -> None:
        finding = self.one("node-id-taken", chain__poc__stage__nodes_in_vain=["a"])
        self.assertIn("a: another participant's node of this id", finding.problem)
        self.assertIn("an id that nobody else", finding.to_do)

    def test_batches_to_validate_that_cannot_be_had(self) -> None:
        changes = {"is_failing": True, "problem": "c:26657: no answer within 60 s"}
        finding = self.one("validation-stuck", chain__poc__validation=VALIDATION | changes)
        self.assertIn("the batches of stage 1000 cannot be had: c:26657: no answer", finding.problem)
        self.assertIn("timeout_broadcast_tx_commit", finding.to_do)
        self.assertEqual(self.found(chain__poc__validation=VALIDATION | changes | {"is_over": True}), [])
        self.assertEqual(self.found(chain__poc__validation=None), [])

    def test_verdicts_that_will_be_missing(self) -> None:
        validation = VALIDATION | {"unanswered": 12}
        self.assertEqual(self.found(chain__poc__validation=validation), [])
        situation = {"height": 1090, "phase": "PoCValidateWindDown", "blocks_left": 3}
        finding = self.one("validation-unanswered", chain__poc__validation=validation, chain__poc__situation=situation)
        self.assertEqual(finding.problem, "stage 1000: 12 of 30 participants have no verdict, and 3 blocks are left")


class HostTests(CheckTestCase):
    """Declared nodes, weight, claims."""

    def test_a_task_that_is_kept_from_its_turn(self) -> None:
        late = HOST | {"late": ["claim"], "problems": {"claim": "SettleAmount: no answer", "weight": "a new one"}}
        finding = self.one("upkeep-late", chain__poc__host=late)
        self.assertEqual(finding.problem, "claim: not looked after for 5 minutes: SettleAmount: no answer")

    def test_a_version_that_is_no_part_of_a_path(self) -> None:
        version = {"version": "", "unusable": "v3/.."}
        self.assertIn("'v3/..'", self.one("node-version-unusable", chain__poc__host__node_version=version).problem)

    def test_declared_nodes(self) -> None:
        for name, value, problem_id, said in (
            ("is_refused", True, "nodes-not-declared", "governance knows no model at all"),
            ("has_no_effect", True, "declaring-in-vain", "does not show them"),
            ("times_undone", 2, "declared-by-others", "was changed by somebody else, 2 times"),
            ("unknown_models", {"a": ["x", "y"]}, "models-unknown", "a: governance knows no model x, y"),
        ):
            finding = self.one(problem_id, **{f"chain__poc__host__hardware_nodes__{name}": value})
            self.assertIn(said, finding.problem)

    def test_where_others_declare_and_claim(self) -> None:
        host = {name: value for name, value in HOST.items() if name not in ("hardware_nodes", "claim")}
        self.assertEqual(self.found(chain__poc__host=host), [])

    def test_batches_that_count_nothing(self) -> None:
        finding = self.one("not-counted", chain__poc__host__weight__uncounted={"a": "it is not declared"})
        told = "a: its batches of epoch 7 are confirmed but not counted: it is not declared"
        self.assertEqual((finding.problem, finding.node_id), (told, "a"))

    def test_claims(self) -> None:
        unpaid = {"epoch_index": 7, "coins": 1000, "state": "failed", "reason": "not paid"}
        finding = self.one("claim-unpaid", chain__poc__host__claim__unpaid=unpaid)
        self.assertEqual(finding.problem, "epoch 7: 1000 are still owed, and the claim is failed (not paid)")
        self.assertIn("batches/claim-7/retry", finding.to_do)
        other_key = unpaid | {"state": None, "reason": None}
        finding = self.one("claim-of-other-key", chain__poc__host__claim__unpaid=other_key)
        self.assertIn("another key signed its seed", finding.problem)
