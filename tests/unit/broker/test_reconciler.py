"""Each node is brought to where it is intended to be, with nothing said twice."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred

from dapi.broker import reconciler
from dapi.broker.duties import Intention
from dapi.broker.node_worker_commands import Command, StopNodeCommand
from dapi.broker.nodes import Node, NodeStore
from dapi.errors import StoreBusyError
from dapi.phases.duty import Duty
from tests.nodes import node_config
from tests.unit.broker.reconciler_case import GENERATE, INFERENCE, NEXT, STOPPED, VALIDATE, ReconcilerTestCase


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
            self.assert_standing(intended=intention.duty, current=current, under_way=None, problem=None, tries=0)
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
        self.assert_standing(under_way=Duty.GENERATE, current=None)
        for _ in range(3):
            self.intend(GENERATE)
            self.blocks(3)
        self.assertEqual(["pow/init/generate"], self.told())
        self.assertEqual([], self.reconciler.workers_at(Duty.GENERATE))
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

    def test_of_many_some_in_each_turn_of_the_reactor(self) -> None:
        names = [f"n{number:02}" for number in range(20)]
        self.add(*names)
        self.clock.pump([0] * 5)
        self.intend(GENERATE, *names)

        def commanded() -> list[str]:
            return [name for name in names if self.stubs[name].events]

        # The node that is not named is looked at, too.
        self.assertEqual(commanded(), names[:7])
        # In the middle, all are intended to do something else. Each is looked at, and none loses its place.
        self.intend(INFERENCE, *names)
        self.assertEqual(commanded(), names[:7])
        # To a Clock, all turns are one.
        self.clock.advance(0)
        self.assertEqual({self.standing(name).current for name in names}, {"INFERENCE"})
        inits = {name: self.stubs[name].events.count("pow/init/generate") for name in names}
        self.assertEqual([name for name, count in inits.items() if count], names[:7])

    def test_of_very_many_only_so_many_are_asked_a_second(self) -> None:
        self.patch(reconciler, "_ASKED_A_SECOND", 2)
        names = [f"n{number:02}" for number in range(19)]
        self.add(*names)
        self.clock.advance(0)
        self.intend(GENERATE, *names)
        self.advance(6)

        def asked() -> int:
            return sum(self.stubs[name].events.count("pow/status") for name in names)

        # With "a" they are 20: each is asked every 10 s, however fast the blocks come.
        before = asked()
        for _ in range(40):
            self.reconciler.reconcile()
            self.advance(1)
        self.assertEqual(asked() - before, 4 * len(names))

    def test_a_stop_leaves_the_others(self) -> None:
        names = [f"n{number:02}" for number in range(20)]
        self.add(*names)
        self.clock.pump([0] * 5)
        self.intend(GENERATE, *names)
        self.successResultOf(self.reconciler.stopService())
        self.clock.advance(1)
        self.assertEqual([self.stubs[name].events for name in names[15:]], [[]] * 5)

    def test_defect_at_one_node_delays_no_other(self) -> None:
        command_for = self.broker.command_for

        def fail_for_b(node: Node, intention: Intention) -> Command:
            if node.id == "b":
                raise ZeroDivisionError("defect")
            return command_for(node, intention)

        self.broker.command_for = fail_for_b  # type: ignore[method-assign]
        self.add("b", "c")
        self.intend(GENERATE, "b", "c")
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told("c"))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

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
        self.assert_standing(current="GENERATING", under_way=None, tries=0, problem=None)
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
        self.assert_standing(under_way=Duty.INFERENCE)
        self.told()
        self.intend(GENERATE)
        self.assertEqual(["stop", "pow/init/generate", "websocket restart"], self.told())
        self.assert_standing(current="GENERATING", tries=0)

    def test_back_and_forth_while_the_first_is_being_cancelled(self) -> None:
        websocket = self.websocket("a")
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
        self.assert_standing(tries=0, problem=None)

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
        self.assertEqual([], self.reconciler.workers_at(Duty.GENERATE))

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
        self.assert_standing(tries=30, problem='node1: state (503): refused: {"detail": "no"}'.replace("node1", "a"))

    def test_until_it_succeeds(self) -> None:
        self.stub.refused["pow/init/generate"] = 500
        self.intend(GENERATE)
        self.advance(20)
        del self.stub.refused["pow/init/generate"]
        self.told()
        self.advance(5)
        self.assertEqual(["pow/init/generate", "websocket restart"], self.told())
        self.assert_standing(current="GENERATING", tries=0, problem=None)
        self.advance(100)
        self.assertEqual([], self.told())


class NotLoadedTests(ReconcilerTestCase):
    """Until the nodes are known there is nothing to do."""

    is_started = False

    def test_told_as_soon_as_they_are_loaded(self) -> None:
        self.successResultOf(NodeStore(self.database).save(node_config("a")))
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
