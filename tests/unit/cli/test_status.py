"""``dapi status``, ``dapi epochs``, ``dapi restart-advice``: what they print of recorded answers."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.page_data import POC_V2
from tests.unit.cli.cli_case import CliTestCase, recorded


class StatusTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.status = recorded("status-poc")[1]
        self.client.set("GET", "/status", self.status)

    def test_problems_come_first(self) -> None:
        lines = self.shown("status").splitlines()
        self.assertEqual(lines[:3], ["1 problem", "CRITICAL node-down, for 21s", lines[2]])
        self.assertTrue(lines[2].startswith("node3: state: Connection was refused"))
        self.assertTrue(lines[3].startswith("to do: look whether the node runs"))

    def test_all_is_well(self) -> None:
        self.status["problems"] = []
        self.client.set("GET", "/status", self.status)
        self.assertTrue(self.shown("status").startswith("all is well"))

    def test_how_everything_is(self) -> None:
        shown = self.shown("status")
        for line in (
            "dapi 0.1.0, up 13s",
            "chain gonka-simulated at block 28, submitting",
            "phase PoCGenerate of the PoC of stage 6, 20 blocks left in the window",
            "batches 0 stored, 2 in flight, 103 confirmed, 0 failed, 0 expired; the oldest",
            "database ok, 368 KiB, /var/lib/dapi/outbox.db",
            "NODE ENABLED DOES WEBSOCKET FOR BATCHES HTTP ERRORS",
            "node1 yes GENERATING open 30s 42 0 0",
            "node3 yes not known waiting 22s 19 0 0",
        ):
            self.assertIn(f"\n{line}\n", f"{shown}\n")

    def test_json_is_what_dapi_answers(self) -> None:
        self.assertEqual(self.told("status"), self.status)

    def test_without_a_chain_and_with_a_database_that_does_not_answer(self) -> None:
        self.status["chain"] = {"state": "not configured", "reason": "no chain is configured"}
        self.status["batches"] = None
        self.client.set("GET", "/status", self.status)
        shown = self.shown("status")
        self.assertIn("chain not configured: no chain is configured", shown)
        self.assertIn("phase not followed", shown)
        self.assertIn("batches not known", shown)

    def test_in_inference(self) -> None:
        self.status["chain"]["poc"]["situation"] |= {"phase": "Inference", "stage_height": None, "blocks_left": 7}
        self.client.set("GET", "/status", self.status)
        self.assertIn("phase Inference, 7 blocks to the next PoC", self.shown("status"))

    def test_poc_v2(self) -> None:
        self.status |= POC_V2
        self.client.set("GET", "/status", self.status)
        shown = self.shown("status")
        self.assertIn("relay 40 callbacks kept, 3 wait, 4 unsettled, 5 held, 2 late", shown)
        self.assertIn("is away: Connection was refused", shown)
        self.assertIn("PoC v2 PoCGenerate at block 1728030, stage 1728000 (confirmation)", shown)
        self.assertIn("stored 1250, committed 825, 41.7 a second", shown)

    def test_of_a_thousand_nodes_the_first_are_shown(self) -> None:
        node = self.status["nodes"][0]
        self.status["nodes"] = [{**node, "node_id": f"n{number}"} for number in range(1000)]
        self.client.set("GET", "/status", self.status)
        shown = self.shown("status")
        self.assertIn("and 980 more nodes: dapi nodes", shown)
        self.assertNotIn("n20 ", shown)

    def test_what_came_from_outside_moves_no_cursor(self) -> None:
        nasty = "\x1b[2J[bold]node\r\x07"
        self.status["problems"][0] |= {"problem": nasty, "to_do": nasty}
        self.status["nodes"][0]["node_id"] = nasty
        self.client.set("GET", "/status", self.status)
        # That there is no escape at all is looked for in each test.
        self.assertIn("?[2J[bold]node??", self.shown("status"))

    def test_names_of_any_length_are_shown_whole(self) -> None:
        long = "n" * 128
        self.status["nodes"] = [{**self.status["nodes"][0], "node_id": long}]
        self.client.set("GET", "/status", self.status)
        self.assertEqual(self.shown("status").count("n" * 5) * 5 > 100, True)

    def test_watch_looks_again_until_it_is_interrupted(self) -> None:
        self.sleeps = 2
        later = copy.deepcopy(self.status)
        later["uptime_seconds"] = 100
        self.client.set("GET", "/status", self.status, self.status, later)
        output = self.run_dapi("status", "--watch", "--interval", "0.5", code=1).stdout
        self.assertIn("up 1m 40s", output)
        self.assertEqual(self.slept, [0.5, 0.5, 0.5])
        self.assertEqual(len(self.client.calls), 3)

    def test_watch_outlives_a_restart_of_dapi(self) -> None:
        self.sleeps = 2
        self.client.set("GET", "/status", self.status, (503, {"error": "dapi is stopping"}), self.status)
        output = self.run_dapi("status", "--watch", code=1).stdout
        self.assertTrue(output.startswith("1 problem"), output)
        self.assertEqual(len(self.client.calls), 3)

    def test_watch_of_no_dapi_ends(self) -> None:
        self.client.set("GET", "/status", b"", status=502)
        self.refused("status", "--watch", code=4)

    def test_watch_with_json_is_a_line_each_time(self) -> None:
        self.sleeps = 1
        lines = self.run_dapi("status", "--watch", "--json", code=1).stdout.splitlines()
        self.assertEqual([json.loads(line) for line in lines if line], [self.status] * 2)


class EpochTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.set("GET", "/epochs", recorded("epochs")[1])

    def test_a_line_for_each_stage(self) -> None:
        head, line = self.shown("epochs", "--limit", "3").splitlines()
        self.assertEqual(head, "STAGE OF MADE CONFIRMED FAILED EXPIRED VERDICTS WEIGHT PAID FOR")
        self.assertEqual(line, "6 epoch 1 103 101 0 0 0 - -")
        self.assertEqual(self.client.calls, [("GET", "/epochs?limit=3", None)])

    def test_a_line_for_each_node(self) -> None:
        lines = self.shown("epochs", "--nodes").splitlines()
        self.assertIn("node1 42 41 0 0 0 - -", lines)
        self.assertIn("(no node) 0 0 0 0 0 - -", lines)

    def test_none_yet(self) -> None:
        self.client.set("GET", "/epochs", {"epochs": []})
        self.assertIn("no stage is known yet", self.shown("epochs"))

    def test_json(self) -> None:
        self.assertEqual(self.told("epochs"), recorded("epochs")[1])

    def test_of_poc_v2(self) -> None:
        stages = [{**stage, "stored_at_the_end": stage["stored"]} for stage in POC_V2["poc_v2_watch"]["stages"]]
        self.client.set("GET", "/epochs", {"epochs": [], "poc_v2": stages})
        shown = self.shown("epochs")
        self.assertEqual(shown.splitlines()[0], "PoC v2, Qwen/<b>Qwen3</b>")
        self.assertEqual(shown.splitlines()[1], "STAGE OF RELAYED STORED COMMITTED AT 1/3 VOTES RESTARTS")
        self.assertEqual(shown.splitlines()[2], "1728000 confirmation 1260 1250 825 33% 3 of 7 1")
        self.assertIn("1710720 regular", shown)
        self.assertIn("node1 700", self.shown("epochs", "--nodes"))


class RestartTests(CliTestCase):
    def advise(self, answer: Any) -> None:
        self.client.set("GET", "/restart", answer)

    def test_safe(self) -> None:
        self.advise({"safe": True, "reason": None, "blocks_left": 210})
        self.assertIn("yes: dapi may be restarted now; the next PoC starts in 210 blocks", self.shown("restart-advice"))

    def test_however_long(self) -> None:
        self.advise({"safe": True, "reason": None, "blocks_left": None, "safe_at": None})
        self.assertEqual(self.shown("restart-advice"), "yes: dapi may be restarted now")

    def test_of_the_api_container(self) -> None:
        reason = "stage 100 of PoC v2 takes results from block 165 on: the container brings the weights onto the chain"
        container = {"safe": False, "reason": reason, "blocks_left": 0, "safe_at": 185}
        self.advise({"safe": True, "reason": None, "blocks_left": None, "safe_at": None, "api_container": container})
        of_container = f"no: the api container may not be restarted: {reason}; wait until block 185"
        shown = self.shown("restart-advice").splitlines()
        self.assertEqual((shown[0], " ".join(shown[1:])), ("yes: dapi may be restarted now", of_container))
        shown = self.shown("restart-advice", "--container", code=3).splitlines()
        self.assertEqual((" ".join(shown[:-1]), shown[-1]), (of_container, "yes: dapi may be restarted now"))
        self.advise(container)
        self.assertIn("wait until block 185, or lose what the nodes deliver meanwhile", self.words("restart-advice"))
        self.assertIn("set poc_v2.watch", self.refused("restart-advice", "--container"))

    def words(self, command: str) -> str:
        """What a command that says no prints, in one line."""
        return " ".join(self.shown(command, code=3).split())

    def test_not_safe(self) -> None:
        for name, reason in (("restart-poc", "the chain is in PoCGenerate"), ("restart-inference", "PoC starts in 1")):
            self.advise(recorded(name)[1])
            self.assertIn(f"no: {reason}", self.shown("restart-advice", code=3))
            self.assertEqual(self.told("restart-advice", code=3), recorded(name)[1])
