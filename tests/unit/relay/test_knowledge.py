"""What must not be handed on, by what is known of the host."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.api_answers import ApiNode, Epochs, StageKind, StageWindow
from dapi.relay.facts import Facts, Target
from dapi.relay.hearing import Hearing
from dapi.relay.knowledge import Knowledge
from dapi.relay.payload import Payload, Place
from dapi.relay.scan import Scan
from dapi.relay.suspicion import is_of_its_node, is_too_high
from dapi.simulator.vllm.sender import generated_body

STAGE = StageWindow(100, 100, 160, 165, 185)


def node(num: int, *, model: str = "m", status: str = "GENERATING") -> ApiNode:
    return ApiNode(f"node{num}", num, "10.0.0.7", frozenset({model}), status)


def facts(*nonces: int, node_num: int = 1, height: int = 100) -> Facts:
    scan = Scan()
    scan.feed(generated_body(height, node_num, list(nonces)))
    return scan.facts()


def payload(found: Facts, *, model: str = "m", kind: str = "generated") -> Payload:
    return Payload(1, Place("", 0), b"", (), 1, 0.0, Target(model, kind), found)


class SuspicionTests(SynchronousTestCase):
    def test_a_nodes_own_nonces(self) -> None:
        for own in ([1], [1, 4, 7], [7, 1, 4], [4, 10, 19], [1, 7, 13]):
            self.assertTrue(is_of_its_node(facts(*own), 3), own)
        for others in ([2], [1, 2], [1, 4, 8], [0, 3]):
            self.assertFalse(is_of_its_node(facts(*others), 3), others)
        self.assertTrue(is_of_its_node(Facts(nonces=range(5)), 3), "nothing is known of its node")

    def test_how_high_nonces_get(self) -> None:
        """docs/protocol/poc-v2.md, 'Judgement': others reject 100 times the count."""
        for node_count in (1, 3, 25, 150):
            # One backend of eight, the first one to deliver.
            honest = range(1, 1 + 8 * node_count * 500, 8 * node_count)
            self.assertFalse(is_too_high(facts(*honest), 0, node_count), node_count)
            self.assertTrue(is_too_high(facts(2**31 - 1), 0, node_count), node_count)
        self.assertTrue(is_too_high(facts(100_000), 999, 3))
        self.assertFalse(is_too_high(facts(99_999), 999, 3))
        self.assertTrue(is_too_high(facts(*[1] * 5000, 100_000), 900, 3), "one that is there again is one")


class HearingTests(SynchronousTestCase):
    def test_who_generates_and_is_not_heard(self) -> None:
        clock = Clock()
        knowledge = Knowledge(clock)
        hearing = Hearing(clock, knowledge)
        self.assertEqual(hearing.silent(), {})
        knowledge.learn_epochs(Epochs(110, "", (STAGE,), 500))
        knowledge.learn_nodes((node(1), node(2), node(3, status="IDLE")))
        clock.advance(29)
        hearing.hear(facts(1))
        hearing.hear(facts(9, node_num=9))
        clock.advance(1)
        self.assertEqual(hearing.silent(), {"node2": 30.0})
        clock.advance(30)
        self.assertEqual(hearing.silent(), {"node1": 31.0, "node2": 60.0})
        knowledge.problems["nodes"] = "no answer"
        self.assertEqual(hearing.silent(), {}, "what they say is old")
        del knowledge.problems["nodes"]
        knowledge.learn_epochs(Epochs(161, "", (STAGE,), 500))
        self.assertEqual(hearing.silent(), {}, "the stage is over")


class KnowledgeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.knowledge = Knowledge(self.clock, now=self.clock.seconds)
        self.knowledge.learn_epochs(Epochs(110, "PoCGenerate", (STAGE,), 500))
        self.knowledge.learn_nodes((node(1), node(2)))

    def held(self, found: Facts, counted: int = 0, **said: str) -> str | None:
        each = payload(found, **said)
        return self.knowledge.held_reason(each.said, each.headers, each.facts, counted)

    def test_what_a_node_makes_goes_on(self) -> None:
        self.assertIsNone(self.held(facts(1, 4, 7)))
        self.assertIsNone(self.held(facts(2, 5, node_num=2)))
        self.assertIsNone(self.held(Facts()), "what cannot be read")

    def test_nonces_of_others_are_held(self) -> None:
        self.assertIn("none of those of node number 1", self.held(facts(1, 5)) or "")
        self.assertIsNone(self.held(facts(1, 5), kind="validated"), "a result has no nonces of its own")

    def test_a_callback_that_is_no_json_by_its_head_is_held(self) -> None:
        for content_type, is_held in (
            (b"application/json", False),
            (b"application/json; charset=utf-8", False),
            (b"application/xml", True),
            (b"text/xml", True),
            (b"", True),
        ):
            headers = ((b"content-type", content_type), (b"accept", b"text/xml"))
            reason = self.knowledge.held_reason(Target("m", "generated"), headers, facts(1), 0)
            self.assertEqual(reason is not None, is_held, content_type)

    def test_what_the_container_has_no_route_for_goes_on(self) -> None:
        self.assertIsNone(self.knowledge.held_reason(Target(None, None), (), Facts(suspicion="anything"), 0))

    def test_a_node_goes_on_with_the_node_count_of_its_init(self) -> None:
        self.knowledge.learn_nodes((node(1), node(7)))
        self.assertIsNone(self.held(facts(1, 4, 7)))
        self.assertIsNone(self.held(facts(1, 9, 17)))
        self.assertIsNotNone(self.held(facts(1, 6)))

    def test_a_high_nonce_is_held_until_enough_is_counted(self) -> None:
        self.assertIn("nonce 300001 is far above", self.held(facts(300_001)) or "")
        self.assertIsNone(self.held(facts(300_001), counted=3_000))

    def test_the_host_may_say_otherwise(self) -> None:
        self.knowledge = Knowledge(self.clock, holds_suspects=False)
        self.knowledge.learn_epochs(Epochs(110, "", (STAGE,), 500))
        self.knowledge.learn_nodes((node(1),))
        self.assertIsNone(self.held(facts(2, 300_001)))
        self.assertIsNotNone(self.held(facts(1, height=101)), "but not of what takes the stage away")

    def test_a_stage_that_is_not_known_is_held_until_it_is(self) -> None:
        heard: list[None] = []
        self.knowledge.observe(lambda: heard.append(None))
        self.assertIn("stage 140 is not known", self.held(facts(1, height=140)) or "")
        self.knowledge.learn_challenge(StageWindow(140, 140, 300, 300, 300, StageKind.CHALLENGE))
        self.assertEqual(len(heard), 1)
        self.assertIsNone(self.held(facts(1, height=140)))
        self.assertEqual(self.knowledge.newest, 140)
        self.assertEqual(self.knowledge.oldest_open, 100, "the regular one is not over")
        self.assertIsNone(self.knowledge.late_reason(payload(facts(1))))

    def test_a_stage_that_begins_while_the_container_tells_nothing_goes_on(self) -> None:
        """Its public port may fail, or the chain that it asks, while it takes callbacks."""
        self.clock.advance(9)
        self.assertIn("stage 118 is not known", self.held(facts(1, height=118)) or "")
        self.clock.advance(1)
        self.assertIsNone(self.held(facts(1, height=118)))
        self.assertIn("cannot have come to stage 121", self.held(facts(1, height=121)) or "")
        self.clock.advance(1)
        self.assertIsNone(self.held(facts(1, height=121)))
        self.knowledge.learn_epochs(Epochs(121, "PoCGenerate", (STAGE,), 500))
        self.assertIsNotNone(self.held(facts(1, height=118)), "it says otherwise")

    def test_at_a_start_a_stage_goes_on_though_the_container_tells_nothing(self) -> None:
        self.knowledge = Knowledge(self.clock)
        self.assertIsNotNone(self.held(facts(1, height=10**6)))
        self.clock.advance(10)
        self.assertIsNone(self.held(facts(1, height=10**6)))

    def test_what_is_late(self) -> None:
        def late(height: int | None, kind: str = "generated") -> str:
            return self.knowledge.late_reason(payload(Facts(height), kind=kind)) or ""

        self.assertEqual((late(100), late(99)), ("", "stage 99 is over"))
        unknown = ((120, "generated"), (None, "generated"), (10**20, "validated"))
        self.assertEqual([late(*each) for each in unknown], [""] * len(unknown))
        self.knowledge.learn_epochs(Epochs(161, "", (STAGE,), 500))
        self.assertIn("ended with block 160", late(100))
        self.assertEqual(late(100, "validated"), "")
        self.knowledge.learn_epochs(Epochs(185, "", (STAGE,), 500))
        self.assertIn("ended with block 184", late(100, "validated"))
        self.clock.advance(3600)
        self.assertEqual([late(*each) for each in unknown], [""] * len(unknown))
        self.clock.advance(1)
        for each in unknown:
            self.assertIn("waited for an hour", late(*each))

    def test_a_model_that_no_node_runs_is_held(self) -> None:
        self.assertIn("runs its model", self.held(facts(1), model="other") or "")
        self.knowledge.learn_nodes((node(1), node(2, model="other")))
        self.assertIsNone(self.held(facts(1), model="other"))

    def test_before_the_nodes_are_known_no_model_goes_on(self) -> None:
        """After a start the stages may be told before the nodes: what was held then is held yet."""
        self.knowledge = Knowledge(self.clock, now=self.clock.seconds)
        self.clock.advance(100)
        self.knowledge.begin()
        self.assertIn("not told its stage yet", self.held(facts(1)) or "")
        self.knowledge.learn_epochs(Epochs(110, "PoCGenerate", (STAGE,), 500))
        for model in ("m", "other"):
            self.assertIn("not told its nodes yet", self.held(facts(1), model=model) or "")
        self.clock.advance(10)
        self.assertIsNone(self.held(facts(1)), "a wrong URL must not cost the stage")
        self.knowledge.learn_nodes((node(1),))
        self.assertIn("runs its model", self.held(facts(1), model="other") or "")

    def test_nodes_that_tell_no_model_hold_nothing_up(self) -> None:
        self.knowledge.learn_nodes((ApiNode("node2", 2, "10.0.0.7", frozenset(), "GENERATING"),))
        self.assertIsNone(self.held(facts(1, 4), model="other"))

    def test_when_a_stage_takes_no_more(self) -> None:
        self.assertFalse(self.knowledge.takes_no_more(STAGE.height))
        self.assertFalse(self.knowledge.takes_no_more(STAGE.height + 1), "it is not known")
        self.assertTrue(self.knowledge.takes_no_more(STAGE.height - 1), "older than all that is known")
        self.knowledge.learn_epochs(Epochs(STAGE.end, "", (STAGE,), 500))
        self.assertFalse(self.knowledge.takes_no_more(STAGE.height))
        self.knowledge.learn_epochs(Epochs(STAGE.end + 1, "", (STAGE,), 500))
        self.assertTrue(self.knowledge.takes_no_more(STAGE.height))
        self.assertFalse(Knowledge(self.clock).takes_no_more(STAGE.height), "nothing is known yet")

    def test_since_when_nodes_generate(self) -> None:
        self.clock.advance(10)
        self.knowledge.learn_nodes((node(1), node(2, status="IDLE"), node(3)))
        self.assertEqual(self.knowledge.generating, {"node1": 0.0, "node3": 10.0})
        self.assertTrue(self.knowledge.is_generating_time)
        self.knowledge.learn_epochs(Epochs(161, "", (STAGE,), 500))
        self.assertFalse(self.knowledge.is_generating_time)
