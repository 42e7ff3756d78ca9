"""The network's arguments of a model come first, and the host's own only where the network has none of that key."""

from __future__ import annotations

import json

from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.mlnode.arguments import NetworkArguments
from dapi.mlnode.client import MLNodeClient

MODEL = "Qwen/QwQ-32B"


class MergedTests(SynchronousTestCase):
    def merged(self, network: str, own: str) -> str:
        arguments = NetworkArguments()
        arguments.by_model = {MODEL: tuple(network.split()), "another": ("--another",)}
        return " ".join(arguments.merged(MODEL, tuple(own.split())))

    def test_those_of_the_network_first(self) -> None:
        self.assertEqual(self.merged("--quantization fp8", "--max-num-seqs 4"), "--quantization fp8 --max-num-seqs 4")

    def test_a_key_of_the_network_takes_the_place_of_the_hosts_with_its_values(self) -> None:
        for own in ("--quantization awq -5 x", "--quantization=awq", "--quantization"):
            merged = self.merged("--quantization fp8", f"--a 1 {own} --b 2")
            self.assertEqual(merged, "--quantization fp8 --a 1 --b 2")
        self.assertEqual(
            self.merged("--max-model-len=9 --eager", "--max_model_len 7 --eager -tp 2"),
            "--max-model-len=9 --eager -tp 2",
        )

    def test_what_stands_before_any_key_stays(self) -> None:
        self.assertEqual(self.merged("--a 1", "x -1 --a 2"), "--a 1 x -1")

    def test_where_the_network_says_nothing_the_hosts_are_as_they_were(self) -> None:
        arguments, own = NetworkArguments(), ("--a", "1", "--a", "2")
        self.assertEqual(arguments.merged(MODEL, own), own)
        arguments.by_model = {"another": ("--a", "3")}
        self.assertEqual(arguments.merged(MODEL, own), own)

    def test_a_node_is_told_both_whichever_way_it_begins(self) -> None:
        told: list[list[str]] = []

        def respond(*call: object) -> tuple[int, dict[bytes, bytes], bytes]:
            told.append(json.loads(bytes(call[-1]))["additional_args"])  # type: ignore[call-overload]
            return 200, {}, b"{}"

        arguments, agent = NetworkArguments(), RequestTraversalAgent(StringStubbingResource(respond))
        client = MLNodeClient(Clock(), "http://node", node_id="n", network_arguments=arguments, agent=agent)
        # The client hears of them later than it is made.
        arguments.by_model = {MODEL: ("--a", "1")}
        for begin in (client.inference_up, client.inference_up_async):
            self.successResultOf(begin(MODEL, ("--b",)))
        self.assertEqual(told, [["--a", "1", "--b"]] * 2)
