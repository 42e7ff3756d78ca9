"""Each node is brought to where it is intended to be, and back there, with nothing said twice."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from dapi.broker.node_worker_commands import StopNodeCommand
from dapi.broker.nodes import NodeStore
from dapi.broker.reconciler import Intention, NodeDuty, NodeStanding, Reconciler
from dapi.errors import StoreBusyError
from tests.batches import generated_batch
from tests.nodes import StubNode, node_config
from tests.unit.broker_world import BrokerTestCase

GENERATE = Intention(NodeDuty.GENERATE, 1000, "AB", "02aa", 7)
VALIDATE = Intention(NodeDuty.VALIDATE, 1000, "AB", "02aa", 7)
INFERENCE = Intention(NodeDuty.INFERENCE)
STOPPED = Intention(NodeDuty.STOPPED)
NEXT = Intention(NodeDuty.GENERATE, 2000, "CD", "02aa", 8)

INITS = ("pow/init/generate", "pow/init/validate")
ASKED = ("state", "pow/status", "health", "inference/up/status")


class ReconcilerTestCase(BrokerTestCase):
    """Has a reconciler for a broker whose nodes are stubs; ``a`` is one of them."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1000)
        self.reconciler = self.make_reconciler()
        self.reconciler.startService()
        if self.is_started:
            self.add("a")

    def make_reconciler(self) -> Reconciler:
        return Reconciler(self.clock, self.broker, random=Random(1))

    @property
    def stub(self) -> StubNode:
        return self.stubs["a"]

    def intend(self, intention: Intention | None, *names: str) -> None:
        self.reconciler.intend({} if intention is None else dict.fromkeys(names or ("a",), intention))

    def told(self, name: str = "a") -> list[str]:
        """What the node was told since the last time it was looked at, without what it was only asked."""
        stub = self.stubs[name]
        events, stub.events[:] = list(stub.events), []
        return [event for event in events if event not in ASKED]

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps that add up exactly."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(1 / 8)

    def blocks(self, count: int) -> None:
        """Let blocks come, one each second."""
        for _ in range(count):
            self.advance(1)
            self.reconciler.reconcile()

    def standing(self, name: str = "a") -> NodeStanding:
        return self.reconciler.status()[name]

    def assert_standing(self, **expected: Any) -> None:
        standing = self.standing()
        self.assertEqual(expected, {name: getattr(standing, name) for name in expected})

    def last_init(self) -> dict[str, Any]:
        return [body for body in self.stub.bodies if body is not None][-1]  # type: ignore[no-any-return]


class CommandTests(ReconcilerTestCase):
    """What is intended is told, once."""

    def test_each_duty(self) -> None:
        for intention, told, current in (
            (GENERATE, ["pow/init/generate", "websocket restart"], "GENERATING"),
            (VALIDATE, ["pow/init/validate", "websocket restart"], "VALIDATING"),
            (INFERENCE, ["stop", "websocket stop", "inference/up/async", "inference/up"], "INFERENCE"),
            (STOPPED, ["stop", "websocket stop"], "STOPPED"),
        ):
            self.intend(intention)
            self.assertEqual(told, self.told())
            self.assert_standing(intended=intention.duty, current=current, under_way=None, last_error=None, tries=0)
            self.assertEqual([self.worker("a")], self.reconciler.workers_at(intention.duty))

    def test_request_is_that_of_the_intention(self) -> None:
        self.add("b")
        self.intend(NEXT)
        body = self.last_init()
        self.assertEqual(
            (2000, "CD", "02aa", 1, 8),
            (body["block_height"], body["block_hash"], body["public_key"], body["node_id"], body["node_count"]),
        )

    def test_validation_is_the_same_request(self) -> None:
        self.intend(GENERATE)
        generate = self.last_init()
        self.intend(VALIDATE)
        self.assertEqual(generate, self.last_init())

    def test_nothing_twice_while_it_is_under_way(self) -> None:
        self.stub.held = {"pow/init/generate"}
        self.intend(GENERATE)
        self.assert_standing(under_way=NodeDuty.GENERATE, current=None)
        for _ in range(3):
            self.intend(GENERATE)
            self.blocks(3)
        self.assertEqual(["pow/init/generate"], self.told())
        self.assertEqual([], self.reconciler.workers_at(NodeDuty.GENERATE))
        self.stub.release()
        self.assertEqual(["websocket restart"], self.told())
        self.assert_standing(under_way=None, current="GENERATING")

    def test_nothing_twice_when_it_is_there(self) -> None:
        self.intend(GENERATE)
        self.told()
        for _ in range(5):
            self.intend(GENERATE)
            self.blocks(20)
        self.assertEqual([], self.told())

    def test_side_by_side(self) -> None:
        self.add("b")
        self.stub.held = {"state"}
        self.intend(GENERATE, "a", "b")
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told("b"))
        self.stub.release()
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told("a"))

    def test_node_left_over_from_an_older_stage(self) -> None:
        self.stub.state, self.stub.pow_status = "POW", "GENERATING"
        self.intend(NEXT)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())
        self.assertEqual(2000, self.last_init()["block_height"])

    def test_not_before_the_start(self) -> None:
        self.successResultOf(self.reconciler.stopService())
        self.intend(GENERATE)
        self.assertEqual([], self.told())
        self.reconciler.startService()
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())

    def test_after_a_restart_the_command_is_given_again(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.reconciler.stopService())
        self.restart()
        self.reconciler = self.make_reconciler()
        self.reconciler.startService()
        before = self.last_init()
        self.told()
        self.intend(GENERATE)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())
        self.assertEqual(before, self.last_init())


class NewerIntentionTests(ReconcilerTestCase):
    """What is not wanted any more is not waited for."""

    def test_cancels_the_older_command(self) -> None:
        self.stub.held = {"pow/init/generate"}
        self.intend(GENERATE)
        self.stub.held = set()
        self.intend(NEXT)
        told = ["pow/init/generate", "websocket stop", "pow/init/generate", "websocket restart"]
        self.assertEqual(told, self.told())
        self.assertEqual(2000, self.last_init()["block_height"])
        self.assert_standing(current="GENERATING", under_way=None, tries=0, last_error=None)
        self.stub.release()
        self.advance(120)
        self.assertEqual([], self.told())

    def test_cancels_one_that_waits_its_turn(self) -> None:
        self.stub.held = {"stop"}
        self.worker("a").submit(StopNodeCommand())
        self.intend(GENERATE)
        self.intend(NEXT)
        self.stub.release()
        told = ["stop", "websocket stop", "pow/init/generate", "websocket restart"]
        self.assertEqual(told, self.told())
        self.assertEqual(2000, self.last_init()["block_height"])

    def test_supersedes_inference_that_comes_up(self) -> None:
        self.stub.up_status = "in_progress"
        self.intend(INFERENCE)
        self.advance(10)
        self.assert_standing(under_way=NodeDuty.INFERENCE)
        self.told()
        self.intend(GENERATE)
        self.assertEqual(["stop", "pow/init/generate", "websocket restart"], self.told())
        self.assert_standing(current="GENERATING", tries=0)

    def test_back_and_forth_while_the_first_is_being_cancelled(self) -> None:
        websocket: Any = self.worker("a").websocket_client
        websocket.closing = Deferred()
        self.stub.held = {"pow/init/generate"}
        self.intend(GENERATE)
        self.intend(NEXT)
        self.intend(GENERATE)
        self.stub.held = set()
        websocket.closing.callback(None)
        told = ["pow/init/generate", "websocket stop", "pow/init/generate", "websocket restart"]
        self.assertEqual(told, self.told())
        self.assertEqual(1000, self.last_init()["block_height"])
        self.assert_standing(tries=0, last_error=None)

    def test_does_not_wait_for_the_next_try_of_the_older(self) -> None:
        self.stub.refused["pow/init/generate"] = 500
        self.intend(GENERATE)
        self.assert_standing(tries=1)
        del self.stub.refused["pow/init/generate"]
        self.told()
        self.intend(NEXT)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())
        self.assert_standing(tries=0)

    def test_does_not_wait_for_a_node_that_is_asked(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.stub.held = {"state"}
        self.advance(30)
        self.stub.held = set()
        self.intend(VALIDATE)
        self.assertEqual(["pow/init/validate", "websocket restart"], self.told())
        self.stub.release()
        self.assert_standing(current="VALIDATING")

    def test_withdrawn_leaves_the_node_alone(self) -> None:
        self.stub.held = {"pow/init/generate"}
        self.intend(GENERATE)
        self.intend(None)
        self.blocks(10)
        self.assertEqual(["pow/init/generate"], self.told())
        self.stub.release()
        self.blocks(100)
        self.assertEqual(["websocket restart"], self.told())
        self.assert_standing(intended=None)
        self.assertEqual([], self.reconciler.workers_at(NodeDuty.GENERATE))

    def test_withdrawn_is_not_tried_again(self) -> None:
        self.stub.refused["state"] = 500
        self.intend(GENERATE)
        self.intend(None)
        self.stub.events.clear()
        self.advance(60)
        self.assertEqual([], self.stub.events)


class RetryTests(ReconcilerTestCase):
    """A failed command is tried again after 3 to 5 s, for ever."""

    def test_delays(self) -> None:
        self.stub.refused["state"] = 503
        self.intend(GENERATE)
        tried_at = [self.clock.seconds()]
        while len(tried_at) < 30:
            self.stub.events.clear()
            self.clock.advance(0.01)
            # Blocks do not hurry it.
            self.reconciler.reconcile()
            if "state" in self.stub.events:
                tried_at.append(self.clock.seconds())
        delays = [later - earlier for earlier, later in pairwise(tried_at)]
        self.assertTrue(all(2.99 <= delay <= 5.02 for delay in delays), delays)
        self.assertGreater(max(delays) - min(delays), 1)
        self.assert_standing(tries=30, last_error='node1: state (503): refused: {"detail": "no"}'.replace("node1", "a"))

    def test_until_it_succeeds(self) -> None:
        self.stub.refused["pow/init/generate"] = 500
        self.intend(GENERATE)
        self.advance(20)
        del self.stub.refused["pow/init/generate"]
        self.told()
        self.advance(5)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())
        self.assert_standing(current="GENERATING", tries=0, last_error=None)
        self.advance(100)
        self.assertEqual([], self.told())


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
        self.assert_standing(
            intended=NodeDuty.GENERATE, current=None, last_error='a: state (502): refused: {"detail": "no"}'
        )
        self.assertEqual([], self.told())
        self.assertEqual(1, len([line for line in self.lines if "not known" in line]))
        del self.stub.refused["state"]
        self.advance(5)
        self.assertEqual([], self.told())
        self.assert_standing(current="GENERATING", last_error=None)

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

    def test_sick_inference(self) -> None:
        self.intend(INFERENCE)
        self.advance(60)
        self.told()
        self.stub.refused["health"] = 503
        self.advance(31)
        self.assert_standing(last_error='a: health (503): refused: {"detail": "no"}')
        del self.stub.refused["health"]
        self.advance(60)
        self.assertEqual([], self.told())
        self.assert_standing(last_error=None)
        self.stub.refused["health"] = 503
        self.advance(30 + 10)
        self.assertEqual(["stop", "websocket stop", "inference/up/async", "inference/up"], self.told())

    def test_inference_port_that_cannot_be_reached(self) -> None:
        self.intend(INFERENCE)
        self.told()
        self.stub.unreachable = {"health"}
        self.advance(120)
        self.assertEqual([], self.told())
        self.assert_standing(current=None, last_error="a: health: Connection was refused by other side")
        self.assertEqual([self.worker("a")], self.reconciler.workers_at(NodeDuty.INFERENCE))

    def test_somebody_else_told_it_something(self) -> None:
        self.intend(GENERATE)
        self.told()
        self.successResultOf(self.worker("a").submit(StopNodeCommand()))
        self.assertEqual([], self.reconciler.workers_at(NodeDuty.GENERATE))
        self.reconciler.reconcile()
        self.assertEqual(["stop", "websocket stop", "pow/init/generate", "websocket restart"], self.told())

    def test_somebody_else_made_it_generate_for_another_stage(self) -> None:
        self.intend(GENERATE)
        self.successResultOf(self.broker.start_poc(5, "EF", "02aa"))
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


class NotLoadedTests(ReconcilerTestCase):
    """Until the nodes are known there is nothing to do."""

    is_started = False

    def test_told_as_soon_as_they_are_loaded(self) -> None:
        self.successResultOf(NodeStore(self.database).save(node_config("a")))  # type: ignore[arg-type]
        self.database.failure = StoreBusyError("locked")
        self.broker.startService()
        self.intend(GENERATE)
        self.blocks(1)
        self.assertEqual({}, self.reconciler.status())
        self.database.failure = None
        self.advance(2)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())


class StopTests(ReconcilerTestCase):
    """Stopping leaves nothing."""

    def test_whatever_it_does(self) -> None:
        self.add("resting", "asked", "told", "there")
        self.stubs["resting"].refused["state"] = 500
        self.intend(GENERATE, "resting", "asked", "told", "there")
        self.advance(25)
        self.stubs["asked"].held = {"state"}
        self.advance(5)
        self.stubs["told"].held = {"pow/init/generate"}
        self.reconciler.intend({**dict.fromkeys(("resting", "asked", "there"), GENERATE), "told": NEXT})
        stopped = self.reconciler.stopService()
        self.successResultOf(stopped)
        for stub in self.stubs.values():
            stub.events.clear()
            stub.release()
        self.assertEqual(["websocket restart"], self.stubs["told"].events)
        self.advance(120)
        self.reconciler.reconcile()
        self.assertEqual(["websocket restart"], [event for stub in self.stubs.values() for event in stub.events])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_twice(self) -> None:
        self.successResultOf(self.reconciler.stopService())
        self.successResultOf(self.reconciler.stopService())

    def test_started_again(self) -> None:
        self.intend(GENERATE)
        self.successResultOf(self.reconciler.stopService())
        self.told()
        self.reconciler.startService()
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())


class StatusTests(ReconcilerTestCase):
    """What it tells of the nodes."""

    def test_fresh(self) -> None:
        self.assertEqual(NodeStanding(None, None, None, 1000, None, 0), self.standing())

    def test_since(self) -> None:
        self.advance(10)
        self.intend(GENERATE)
        self.advance(60)
        self.assertAlmostEqual(1010, self.standing().since)

    def test_found_elsewhere_is_logged(self) -> None:
        self.intend(GENERATE)
        self.advance(10)
        self.stub.state = "STOPPED"
        self.advance(30)
        self.assertIn("a: found STOPPED, where it is to GENERATE", self.lines)

    def test_no_line_for_a_node_that_is_well(self) -> None:
        self.intend(GENERATE)
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.blocks(100)
        self.assertEqual([], [formatEvent(event) for event in events if event["log_level"] > LogLevel.debug])


class WarningTests(ReconcilerTestCase):
    """A node that generates nothing is told of."""

    def batch(self) -> None:
        self.successResultOf(self.worker("a").batch_handler.handle_generated_batch(generated_batch(node_id=1)))

    def test_silent(self) -> None:
        self.intend(GENERATE)
        self.blocks(59)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(1)
        self.assertEqual({"a": "a: is to generate, and no batch came from it for 60 s"}, self.reconciler.warnings())
        self.batch()
        self.assertEqual({}, self.reconciler.warnings())

    def test_silent_again(self) -> None:
        self.intend(GENERATE)
        for _ in range(10):
            self.blocks(20)
            self.batch()
            self.assertEqual({}, self.reconciler.warnings())
        self.blocks(61)
        self.assertEqual(1, len(self.reconciler.warnings()))

    def test_unreachable(self) -> None:
        self.stub.refused["state"] = 502
        self.intend(GENERATE)
        self.blocks(60)
        [warning] = self.reconciler.warnings().values()
        self.assertIn('(a: state (502): refused: {"detail": "no"})', warning)

    def test_only_of_those_who_are_to_generate(self) -> None:
        for intention in (VALIDATE, INFERENCE, STOPPED, None):
            self.intend(intention)
            self.blocks(100)
            self.assertEqual({}, self.reconciler.warnings())
        self.intend(GENERATE)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(100)
        self.intend(NEXT)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(100)
        self.successResultOf(self.broker.disable_node("a"))
        self.assertEqual({}, self.reconciler.warnings())
