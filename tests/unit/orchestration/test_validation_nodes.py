"""Nodes that refuse what they are to validate, or take it and answer nothing: to whom it goes next, and when."""

from __future__ import annotations

from dapi.broker.node_worker_commands import StopNodeCommand
from tests.unit.orchestration.validation_case import START, ValidationTestCase

LOST = "participants go to others, 0 were tried often enough"


class RefusalTests(ValidationTestCase):
    """Nodes that do not take what they are given."""

    def test_the_next_node_is_asked_at_once(self) -> None:
        self.participants(0, 1)
        self.add_nodes("a", "b")
        self.nodes["a"].refuses = True
        self.start()
        self.wait(1)
        self.assertEqual(sorted(self.nodes["b"].took), [0, 1])
        self.assertEqual(self.shown("nodes")[0]["a"]["refused"], self.nodes["a"].asked)

    def test_a_round_asks_each_node_once_and_five_at_most(self) -> None:
        self.participants(0)
        self.add_nodes(*"abcdefg")
        for node in self.nodes.values():
            node.refuses = True
        self.start()
        self.wait(2.5)
        self.assertEqual([node.asked for node in self.nodes.values()], [1, 1, 1, 1, 1, 0, 0])
        self.wait(3)
        self.assertEqual(sum(node.asked for node in self.nodes.values()), 10)
        self.assertEqual([self.nodes[name].asked for name in "fg"], [1, 1], "in turn")

    def test_a_single_node_is_asked_again_until_the_window_ends(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.nodes["a"].refuses = True
        self.start()
        self.wait(2.5)
        self.assertEqual(self.nodes["a"].asked, 1)
        self.wait(60)
        self.assertIn(self.nodes["a"].asked, range(12, 22))
        self.nodes["a"].refuses = False
        self.wait(5)
        self.assertEqual(self.nodes["a"].took, [0])

    def test_no_node_validates_yet(self) -> None:
        self.participants(0, 1)
        self.start()
        self.wait(100)
        self.assertEqual(self.shown("waiting", "handed"), [2, 0])
        self.add_nodes("a")
        self.wait(1)
        self.assertEqual(self.nodes["a"].took, [0, 1])

    def test_a_node_that_comes_in_time_takes_part(self) -> None:
        self.participants(*range(6))
        self.add_nodes("a")
        self.nodes["a"].hangs = True
        self.start()
        self.add_nodes("b")
        self.wait(1)
        self.assertEqual((self.nodes["a"].asked, len(self.nodes["b"].took)), (2, 4))

    def test_a_call_that_ends_with_its_worker(self) -> None:
        self.participants(0)
        self.add_nodes("a")
        self.nodes["a"].hangs = True
        self.start()
        self.nodes.pop("a").calls[0].cancel()
        self.add_nodes("b")
        self.wait(1)
        self.assertEqual(self.nodes["b"].took, [0])
        self.assert_goes_on()

    def test_the_others_go_on_while_one_hangs(self) -> None:
        self.participants(*range(10))
        self.add_nodes("a", "b")
        self.nodes["a"].hangs = True
        self.start()
        self.assertEqual((self.nodes["a"].asked, len(self.nodes["b"].took)), (2, 8))


class SilenceTests(ValidationTestCase):
    """Nodes that take batches and answer none."""

    def setUp(self) -> None:
        super().setUp()
        self.participants(0, 1, 2, 3)
        self.add_nodes("a", "b")
        self.start()
        self.of_a, self.of_b = self.nodes["a"].took[:], self.nodes["b"].took[:]
        self.assertEqual((len(self.of_a), len(self.of_b)), (2, 2))

    def test_a_silent_node_is_reported_and_its_work_goes_to_others(self) -> None:
        self.wait(30)
        self.answer(*self.of_b)
        self.wait(29)
        self.assertEqual(self.silent, [])
        self.wait(1.5)
        self.assertEqual(self.silent, ["a"])
        self.assertEqual(self.nodes["b"].took, self.of_b + self.of_a)
        self.assertEqual(self.shown("nodes")[0]["a"]["silent"], 1)
        self.answer(*self.of_a)
        self.assert_over()

    def test_each_verdict_starts_the_time_anew(self) -> None:
        self.wait(50)
        self.answer(self.of_a[0], self.of_b[0])
        self.wait(50)
        self.assertEqual(self.silent, [])
        self.wait(10.5)
        self.assertEqual(sorted(self.silent), ["a", "b"])

    def test_a_node_without_work_may_be_silent(self) -> None:
        self.answer(*self.of_a)
        self.wait(61)
        self.assertEqual(self.silent, ["b"])

    def test_the_time_begins_with_the_work(self) -> None:
        self.answer(*self.of_a)
        self.wait(50)
        del self.nodes["b"]
        self.wait(1)
        self.assertEqual(self.nodes["a"].took, self.of_a + self.of_b)
        self.wait(50)
        self.assertEqual(self.silent, [])
        self.wait(10)
        self.assertEqual(self.silent, ["a"])

    def test_to_take_more_is_no_answer(self) -> None:
        self.wait(50)
        del self.nodes["b"]
        self.wait(1)
        self.assertEqual(self.nodes["a"].took, self.of_a + self.of_b)
        self.wait(10)
        self.assertEqual(self.silent, ["a"])

    def test_a_node_that_is_loading_is_not_silent(self) -> None:
        self.nodes["a"].loads = True
        self.wait(30)
        self.answer(*self.of_b)
        self.wait(100)
        self.assertEqual(self.silent, [])
        self.nodes["a"].loads = False
        self.wait(60)
        self.assertEqual(self.silent, ["a"])

    def test_a_node_that_does_not_even_tell_is_silent(self) -> None:
        self.nodes["a"].refuses = True
        self.wait(30)
        self.answer(*self.of_b)
        self.wait(31)
        self.assertEqual(self.silent, ["a"])

    def test_a_silent_node_gets_nothing_until_it_was_away(self) -> None:
        self.answer(*self.of_b)
        del self.nodes["b"]
        self.wait(61)
        self.assertEqual(self.silent, ["a"])
        self.wait(30)
        self.assertEqual((self.nodes["a"].took, self.shown("waiting")), (self.of_a, [2]))
        a = self.nodes.pop("a")
        self.wait(5)
        self.nodes["a"] = a
        self.wait(1)
        self.assertEqual(sorted(a.took), sorted(self.of_a * 2), "a single node gets its own again")

    def test_a_silent_node_that_nobody_saw_away_gets_another_chance(self) -> None:
        self.answer(*self.of_b)
        del self.nodes["b"]
        self.wait(61 + 60)
        self.assertEqual(len(self.nodes["a"].took), 4)
        self.wait(61)
        self.assertEqual(self.silent, ["a", "a"])

    def test_rather_another_node_than_the_one_that_was_silent(self) -> None:
        self.answer(*self.of_b)
        nodes = dict(self.nodes)
        del self.nodes["b"]
        self.wait(61)
        self.nodes.clear()
        self.wait(1)
        self.nodes.update(nodes)
        self.wait(1)
        self.assertEqual(self.nodes["b"].took, self.of_b + self.of_a)

    def test_a_participant_that_silences_every_node_is_given_up(self) -> None:
        self.answer(*self.of_b, self.of_a[0])
        for name in self.nodes:
            self.nodes[name].took.clear()
        self.height = START
        self.wait(125 * 6)
        given = self.nodes["a"].took + self.nodes["b"].took
        self.assertEqual(given, [self.of_a[1]] * 4, "five times with the first one")
        self.assertEqual(len(self.silent), 5)
        self.assertEqual(self.shown("unanswered", "waiting"), [1, 0])
        self.assert_goes_on()
        self.answer(self.of_a[1])
        self.assert_over()

    def test_a_node_that_is_away_has_lost_its_work(self) -> None:
        self.answer(*self.of_b)
        del self.nodes["a"]
        self.wait(1)
        self.assertEqual(self.nodes["b"].took, self.of_b + self.of_a)
        self.assertEqual(self.silent, [], "somebody is at it already")

    def test_a_node_that_begins_anew_has_lost_its_work(self) -> None:
        self.nodes["a"].last_begun = StopNodeCommand()
        self.wait(1)
        self.assertEqual(self.nodes["b"].took, self.of_b + self.of_a)
        self.assertEqual(self.log.warnings(), [f"a: began to validate anew; 2 unanswered {LOST}"])
        self.nodes["b"].last_begun = StopNodeCommand()
        self.wait(1)
        taken = self.nodes["a"].took + self.nodes["b"].took
        self.assertEqual(sorted(taken), sorted(self.of_a * 3 + self.of_b * 2))
        self.assertEqual(self.nodes["a"].took[2:], self.of_b, "rather by the one that has not lost it")

    def test_a_single_node_that_begins_anew_gets_its_own_again(self) -> None:
        self.answer(*self.of_b)
        del self.nodes["b"]
        self.nodes["a"].last_begun = StopNodeCommand()
        self.wait(1)
        self.assertEqual(self.nodes["a"].took, self.of_a * 2)

    def test_a_late_verdict_is_one_all_the_same(self) -> None:
        self.answer(*self.of_b)
        del self.nodes["b"]
        self.wait(61)
        self.assertEqual(self.shown("waiting"), [2])
        self.answer(*self.of_a)
        self.assertEqual(self.shown("waiting", "answered"), [0, 4])
        self.assert_over()
