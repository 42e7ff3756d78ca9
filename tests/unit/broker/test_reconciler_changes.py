"""Nodes that are found elsewhere, and nodes that come, go and change: what the reconciler does about them."""

from __future__ import annotations

from dapi.broker.node_worker_commands import StopNodeCommand
from dapi.phases.duty import Duty
from tests.batches import generated_batch
from tests.unit.broker.reconciler_case import GENERATE, INFERENCE, NEXT, STOPPED, VALIDATE, ReconcilerTestCase

INITS = ("pow/init/generate", "pow/init/validate")


class FoundElsewhereTests(ReconcilerTestCase):
    """A node that is not where it was brought is brought there again."""

    def test_polled_every_30_seconds(self) -> None:
        for intention, lost in ((GENERATE, "STOPPED"), (VALIDATE, "STOPPED"), (INFERENCE, "STOPPED"), (STOPPED, "POW")):
            self.intend(intention)
            self.advance(60)
            self.told()
            self.stub.state = lost
            self.advance(30)
            self.assertEqual(1, len([event for event in self.told() if event in (*INITS, "inference/up", "stop")]))
            self.assertNotEqual(lost, self.stub.state)
            self.assert_standing(under_way=None, tries=0)

    def test_looked_at_soon_after_it_got_there(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.stub.state = "STOPPED"
        self.advance(2.875)
        self.assertEqual([], self.told())
        self.advance(2.125)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())

    def test_looked_at_when_blocks_come(self) -> None:
        self.intend(GENERATE)
        self.blocks(20)
        self.stub.events.clear()
        self.blocks(20)
        self.assertEqual(["state", "pow/status"] * 4, self.stub.events)
        self.stub.state = "STOPPED"
        self.told()
        self.blocks(6)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())

    def test_does_something_else_in_its_proof_of_work(self) -> None:
        for intention, elsewhere in ((GENERATE, "VALIDATING"), (VALIDATE, "GENERATING")):
            for status in (elsewhere, "IDLE", "NOT_LOADED", "STOPPED", "MIXED"):
                self.intend(intention)
                self.advance(10)
                self.told()
                self.stub.pow_status = status
                self.advance(30)
                init = f"pow/init/{'generate' if intention is GENERATE else 'validate'}"
                self.assertEqual([init, "websocket restart"], self.told(), status)

    def test_loading_is_on_the_way(self) -> None:
        for intention in (GENERATE, VALIDATE):
            self.intend(intention)
            self.told()
            self.stub.pow_status = "LOADING"
            self.advance(120)
            self.assertEqual([], self.told())
            self.assert_standing(current="LOADING")

    def test_unreachable_is_asked_again_every_few_seconds(self) -> None:
        self.intend(GENERATE)
        self.advance(60)
        self.stub.refused["state"] = 502
        self.stub.events.clear()
        self.advance(90)
        asked = self.stub.events.count("state")
        self.assertTrue(60 // 5 <= asked <= 90 // 3, asked)
        self.assert_standing(intended=Duty.GENERATE, current=None, problem='a: state (502): refused: {"detail": "no"}')
        self.assertEqual([], self.told())
        self.assertEqual(1, len([line for line in self.lines if "not known" in line]))
        del self.stub.refused["state"]
        self.advance(5)
        self.assertEqual([], self.told())
        self.assert_standing(current="GENERATING", problem=None)

    def test_back_after_it_was_unreachable_without_its_state(self) -> None:
        self.intend(GENERATE)
        self.advance(60)
        self.stub.refused["state"] = 502
        self.advance(60)
        self.told()
        self.stub.state = "STOPPED"
        del self.stub.refused["state"]
        self.advance(5)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())

    def test_a_proof_of_work_that_began_anew(self) -> None:
        for intention, status in ((GENERATE, "GENERATING"), (VALIDATE, "VALIDATING"), (VALIDATE, "LOADING")):
            self.intend(intention)
            self.advance(10)
            self.told()
            begun = self.worker("a").last_begun
            self.stub.is_model_initialized, self.stub.pow_status = False, status
            self.advance(60)
            # Once: from then on its model is known to be loading.
            call = "pow/init/generate" if intention is GENERATE else "pow/init/validate"
            self.assertEqual([call, "websocket restart"], self.told())
            self.assertIsNot(begun, self.worker("a").last_begun)
            duty = intention.duty
            self.assertEqual(
                1, len([line for line in self.lines if f"found {status}, begun anew, where it is to {duty}" in line])
            )
            self.stub.is_model_initialized = True

    def test_a_node_that_delivers_batches_of_another_run_gets_its_init_again(self) -> None:
        handler = self.worker("a").batch_handler
        right = generated_batch(block_hash="AB", public_key="02aa")
        others = (
            generated_batch(block_hash="ab", public_key="02aa"),
            generated_batch(block_hash="AB", public_key="03aa"),
        )
        for number, intention in enumerate((GENERATE, VALIDATE)):
            self.intend(intention)
            self.told()
            for foreign in others:
                handler.handle_generated_batch(foreign)
                self.assertEqual([], self.told(), "it may have been computed before")
                self.advance(5)
                handler.handle_generated_batch(right)
                self.assertEqual([], self.told())
                handler.handle_generated_batch(foreign)
                init = "pow/init/generate" if intention is GENERATE else "pow/init/validate"
                self.assertEqual([init, "websocket restart"], self.told())
            self.assert_standing(batches_of_others=4 * (number + 1))
        self.intend(INFERENCE)
        self.advance(30)
        self.told()
        handler.handle_generated_batch(others[0])
        self.assertEqual([], self.told())
        lines = [line for line in self.lines if "has not the block hash or the public key of stage 1000" in line]
        self.assertEqual(2, len(lines), "one for each intention, in a minute")

    def test_one_that_does_not_answer_does_not_validate_after_10_s(self) -> None:
        self.intend(VALIDATE)
        self.advance(30)
        self.stub.refused["state"] = 502
        while self.standing().current is not None:
            self.advance(1)
        self.advance(8)
        self.assertEqual([self.worker("a")], self.reconciler.validators())
        self.advance(2)
        self.assertEqual([], self.reconciler.validators())
        del self.stub.refused["state"]
        self.advance(5)
        self.assertEqual([self.worker("a")], self.reconciler.validators())

    def test_sick_inference(self) -> None:
        self.intend(INFERENCE)
        self.advance(60)
        self.told()
        self.stub.refused["health"] = 503
        self.advance(31)
        self.assert_standing(problem='a: health (503): refused: {"detail": "no"}')
        del self.stub.refused["health"]
        self.advance(60)
        self.assertEqual([], self.told())
        self.assert_standing(problem=None)
        self.stub.refused["health"] = 503
        self.advance(30 + 10)
        self.assertEqual(["stop", "websocket stop", "inference/up/async", "inference/up"], self.told())

    def test_what_an_earlier_inference_lacked_is_not_held_against_the_next(self) -> None:
        self.intend(INFERENCE)
        self.told()
        self.stub.refused["health"] = 503
        self.advance(10)
        self.assertEqual([], self.told())
        del self.stub.refused["health"]
        self.intend(GENERATE)
        self.intend(INFERENCE)
        self.told()
        self.stub.refused["health"] = 503
        self.advance(5)
        self.assert_standing(problem='a: health (503): refused: {"detail": "no"}')
        self.assertEqual([], self.told())

    def test_inference_port_that_cannot_be_reached(self) -> None:
        self.intend(INFERENCE)
        self.told()
        self.stub.unreachable = {"health"}
        self.advance(120)
        self.assertEqual([], self.told())
        self.assert_standing(current=None, problem="a: health: Connection was refused by other side")
        self.assertEqual([self.worker("a")], self.reconciler.workers_at(Duty.INFERENCE))
        # Something else answers there: to stop and start the model again and again would help nobody.
        self.stub.unreachable = set()
        self.stub.refused["health"] = 404
        self.advance(120)
        self.assertEqual([], self.told())

    def test_somebody_else_told_it_something(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.worker("a").submit(StopNodeCommand()))
        self.assertEqual([], self.reconciler.workers_at(Duty.GENERATE))
        self.reconciler.reconcile()
        self.assertEqual(["stop", "websocket stop", "pow/init/generate", "websocket restart"], self.told())

    def test_somebody_else_made_it_generate_for_another_stage(self) -> None:
        self.intend(GENERATE)
        self.command_all(Duty.GENERATE, 5, "EF", "02aa")
        self.reconciler.reconcile()
        self.assertEqual(1000, self.last_init()["block_height"])


class ChangedNodeTests(ReconcilerTestCase):
    """Nodes come, go and change while a stage is on."""

    def test_disabled_is_left_alone(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.broker.disable_node("a"))
        self.blocks(60)
        self.assertEqual(["stop", "websocket stop"], self.told())
        self.intend(NEXT)
        self.blocks(60)
        self.assertEqual([], self.told())
        self.assert_standing(intended=None)

    def test_disabled_while_it_is_told(self) -> None:
        for intention, held in ((GENERATE, "pow/init/generate"), (INFERENCE, "inference/up/status")):
            self.stub.up_status = "in_progress"
            self.stub.held = {held}
            self.intend(intention)
            self.advance(3)
            self.stub.held.clear()
            self.successResultOf(self.broker.disable_node("a"))
            self.assertEqual(["stop", "websocket stop"], self.told()[-2:])
            self.advance(60)
            self.assertEqual("STOPPED", self.stub.state)
            self.successResultOf(self.broker.enable_node("a"))

    def test_enabled_is_told_at_once(self) -> None:
        self.successResultOf(self.broker.disable_node("a"))
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.broker.enable_node("a"))
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())

    def test_disabled_and_enabled_while_nobody_looked(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.broker.disable_node("a"))
        self.successResultOf(self.broker.enable_node("a"))
        self.assertEqual(["stop", "websocket stop", "pow/init/generate", "websocket restart"], self.told())

    def test_added_is_told_at_once(self) -> None:
        self.intend(GENERATE, "a", "b")
        self.add("b")
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told("b"))

    def test_added_without_an_intention_is_left_alone(self) -> None:
        self.intend(GENERATE)
        self.add("b")
        self.blocks(60)
        self.assertEqual([], self.stubs["b"].events)

    def test_removed_is_forgotten(self) -> None:
        self.stub.refused["state"] = 500
        self.intend(GENERATE)
        self.successResultOf(self.broker.remove_node("a"))
        self.stub.events.clear()
        self.advance(60)
        self.assertEqual([], self.stub.events)
        self.assertEqual({}, self.reconciler.status())

    def test_removed_while_it_is_asked(self) -> None:
        self.intend(GENERATE)
        self.stub.held = {"state"}
        self.advance(30)
        self.successResultOf(self.broker.remove_node("a"))
        self.stub.release()
        self.stub.events.clear()
        self.advance(60)
        self.assertEqual([], self.stub.events)

    def test_changed_starts_from_unknown(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.add("a", poc_port=9)
        self.assertEqual(["websocket stop", "pow/init/generate", "websocket restart"], self.told())
        self.add("a", poc_port=9, max_concurrent=3)
        self.blocks(60)
        self.assertEqual([], self.told())

    def test_changed_while_it_is_told(self) -> None:
        self.stub.held = {"pow/init/generate"}
        self.intend(GENERATE)
        self.stub.held = set()
        self.add("a", poc_port=9)
        self.blocks(60)
        told = ["pow/init/generate", "websocket stop", "websocket stop", "pow/init/generate", "websocket restart"]
        self.assertEqual(told, self.told())
        self.assert_standing(current="GENERATING", tries=0)
