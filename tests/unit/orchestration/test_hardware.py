"""What is declared follows from the registered nodes and from governance; the chain gets the difference alone."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.nodes import Node, decode_node_config
from dapi.messages.host_pb2 import HARDWARE_NODE_FAILED, HARDWARE_NODE_POC, HardwareNode
from dapi.orchestration.hardware import hardware_diff, hardware_node, unknown_models

KNOWN = frozenset({"a", "b"})


def node(node_id: str, *models: str, **fields: Any) -> Node:
    defaults = {"host": "10.0.0.7", "inference_port": 5000, "poc_port": 8080}
    named: dict[str, Any] = {model: {"args": []} for model in models or ("a",)}
    return Node(decode_node_config({"id": node_id, **defaults, "models": named, **fields}), 1)


def declared(*nodes: Node) -> dict[str, HardwareNode]:
    """What the chain has of these nodes."""
    return {each.id: hardware_node(each.config, KNOWN) for each in nodes}


class HardwareTests(SynchronousTestCase):
    def test_a_node_as_it_is_declared(self) -> None:
        hardware = [{"type": "H100", "count": 8}]
        made = hardware_node(node("n", "b", "unheard-of", "a", hardware=hardware).config, KNOWN)
        self.assertEqual((made.local_id, made.host, made.port, made.status), ("n", "10.0.0.7", "8080", 1))
        self.assertEqual(list(made.models), ["a", "b"])
        self.assertEqual([(each.type, each.count) for each in made.hardware], [("H100", 8)])

    def test_models_that_governance_does_not_know(self) -> None:
        nodes = [node("n", "b", "x", "w"), node("m", "a")]
        self.assertEqual(unknown_models(nodes, KNOWN), {"n": ["w", "x"]})

    def test_nothing_to_tell(self) -> None:
        nodes = [node("n"), node("m")]
        self.assertIsNone(hardware_diff(nodes, declared(*nodes), KNOWN))
        self.assertIsNone(hardware_diff([], {}, KNOWN))

    def test_new_changed_and_removed(self) -> None:
        same, old = node("same"), node("changed", hardware=[{"type": "A", "count": 1}])
        changed = node("changed", hardware=[{"type": "A", "count": 2}])
        diff = hardware_diff([same, changed, node("new")], declared(same, old, node("gone")), KNOWN)
        assert diff is not None
        self.assertEqual([each.local_id for each in diff.new_or_modified], ["changed", "new"])
        self.assertEqual([each.local_id for each in diff.removed], ["gone"])

    def test_a_model_that_governance_has_learned(self) -> None:
        before = {"n": hardware_node(node("n", "a", "b").config, {"a"})}
        self.assertIsNone(hardware_diff([node("n", "a", "b")], before, {"a"}))
        self.assertIsNotNone(hardware_diff([node("n", "a", "b")], before, KNOWN))

    def test_neither_a_phase_nor_another_way_to_write_it_is_a_difference(self) -> None:
        ours = [node("n", "a", "b", hardware=[{"type": "A", "count": 1}, {"type": "B", "count": 2}])]
        chains = declared(*ours)
        chains["n"].status = HARDWARE_NODE_POC
        chains["n"].host = "http://10.0.0.7"
        chains["n"].models[:] = ["b", "a"]
        chains["n"].hardware.reverse()
        self.assertIsNone(hardware_diff(ours, chains, KNOWN))
        chains["n"].status = HARDWARE_NODE_FAILED
        self.assertIsNotNone(hardware_diff(ours, chains, KNOWN))
