"""A command by hand to many nodes: some get it in each turn of the reactor, and it is followed to its end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from dapi.broker.broker import Broker
from dapi.broker.command_round import RoundProgress
from dapi.broker.node_worker_commands import Command, CommandResult, NodeFailure
from dapi.broker.nodes import Node
from dapi.phases.duty import Duty
from tests.growth import sizes
from tests.unit.broker.broker_case import BrokerTestCase

NAMES = [f"n{number:02}" for number in range(30)]
STAGE = (1000, "AB", "02aa")


class CommandRoundTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(*NAMES)

    def commanded(self) -> list[str]:
        """The nodes that were asked something."""
        return [name for name in NAMES if self.stubs[name].events]

    def progress(self) -> RoundProgress:
        assert self.broker.rounds.last is not None
        return self.broker.rounds.last.progress()

    def test_some_in_each_turn_of_the_reactor(self) -> None:
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.assertEqual(self.commanded(), NAMES[:8])
        self.assertEqual(self.progress(), RoundProgress(Duty.GENERATE, 0, 30, 8, 0, 22))
        self.assertNoResult(ended)
        self.clock.advance(0)
        self.assertEqual(self.commanded(), NAMES)
        results = self.successResultOf(ended)
        self.assertEqual(list(results), NAMES)
        self.assertTrue(all(result.succeeded for result in results.values()))
        self.assertEqual(self.progress(), RoundProgress(Duty.GENERATE, 0, 30, 30, 0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_later_command_is_the_last_that_each_node_gets(self) -> None:
        first = self.commanding(Duty.GENERATE, *STAGE)
        second = self.commanding(Duty.STOPPED)
        results = self.successResultOf(first)
        self.assertEqual([name for name, result in results.items() if result.succeeded], NAMES[:8])
        self.assertEqual(results[NAMES[8]].failure, NodeFailure.NOT_EXECUTED)
        self.assertIn("superseded by a later command", str(results[NAMES[8]].error))
        self.clock.advance(0)
        self.assertTrue(all(result.status == "STOPPED" for result in self.successResultOf(second).values()))
        for name in NAMES:
            inits = [event for event in self.stubs[name].events if event.startswith("pow/init")]
            self.assertEqual(len(inits), 1 if name in NAMES[:8] else 0)
            self.assertEqual(self.stubs[name].events[-2:], ["stop", "websocket stop"])

    def test_a_stop_of_dapi_ends_it(self) -> None:
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.successResultOf(self.broker.stopService())
        results = self.successResultOf(ended)
        self.assertIn("dapi is stopping", str(results[NAMES[-1]].error))
        for name in NAMES[8:]:
            self.assertEqual(self.stubs[name].events, ["websocket stop"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_node_that_is_disabled_before_its_turn_is_left_alone(self) -> None:
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.successResultOf(self.broker.disable_node(NAMES[20]))
        self.clock.advance(0)
        result = self.successResultOf(ended)[NAMES[20]]
        self.assertEqual((result.succeeded, result.failure), (False, NodeFailure.NOT_EXECUTED))
        self.assertIn("it was disabled meanwhile", str(result.error))
        self.assertEqual(self.stubs[NAMES[20]].events, ["stop", "websocket stop"])

    def test_no_node_gets_it_once_no_command_may_be_given(self) -> None:
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.broker.refuse_commands_while(lambda: "the network has moved to PoC v2")
        self.clock.advance(0)
        self.assertEqual(self.commanded(), NAMES[:8])
        self.assertIn("PoC v2", str(self.successResultOf(ended)[NAMES[8]].error))

    def test_a_node_that_is_removed_before_its_turn(self) -> None:
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.successResultOf(self.broker.remove_node(NAMES[20]))
        self.clock.advance(0)
        results = self.successResultOf(ended)
        self.assertEqual([name for name, result in results.items() if not result.succeeded], [NAMES[20]])

    def test_failures_are_counted(self) -> None:
        for name in NAMES[3:10]:
            self.stubs[name].refused["pow/init/generate"] = 500
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.clock.advance(0)
        self.successResultOf(ended)
        self.assertEqual(self.progress(), RoundProgress(Duty.GENERATE, 0, 30, 23, 7, 0))

    def test_a_slow_node_keeps_it_pending(self) -> None:
        self.stubs[NAMES[5]].held = {"state"}
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.clock.advance(0)
        self.assertNoResult(ended)
        self.assertEqual(self.progress().pending, 1)
        assert self.broker.rounds.last is not None
        self.assertIs(self.broker.rounds.last.results()[NAMES[5]], None)
        self.stubs[NAMES[5]].release()
        self.assertTrue(self.successResultOf(ended)[NAMES[5]].succeeded)

    def test_a_defect_at_one_node_keeps_it_from_no_other(self) -> None:
        command_for = Broker.command_for

        def broken(broker: Broker, node: Node, intention: Any) -> Command:
            if node.id == NAMES[1]:
                raise ZeroDivisionError("defect")
            return command_for(broker, node, intention)

        self.patch(Broker, "command_for", broken)
        ended = self.commanding(Duty.GENERATE, *STAGE)
        self.clock.advance(0)
        results = self.successResultOf(ended)
        self.assertEqual([name for name, result in results.items() if not result.succeeded], [NAMES[1]])
        self.assertIs(results[NAMES[1]].failure, NodeFailure.DEFECT)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nothing_grows_with_the_commands(self) -> None:
        grown = []
        for _ in range(3):
            for duty in (Duty.GENERATE, Duty.STOPPED):
                ended = self.commanding(duty, *STAGE) if duty is Duty.GENERATE else self.commanding(duty)
                self.clock.advance(0)
                self.successResultOf(ended)
            grown.append(sizes(self.broker.rounds))
        self.assertEqual(grown[0], grown[-1])
        self.assertEqual(grown[0]["CommandRounds.last._left"], 0)

    def test_whoever_waits_may_go_away(self) -> None:
        self.stubs[NAMES[5]].held = {"state"}
        gone, other = self.commanding(Duty.GENERATE, *STAGE), Deferred[dict[str, CommandResult]]()
        assert self.broker.rounds.last is not None
        self.broker.rounds.last.ended().addCallback(other.callback)
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.clock.advance(0)
        self.stubs[NAMES[5]].release()
        self.assertEqual(len(self.successResultOf(other)), 30)
