"""``dapi batches``, ``dapi batch``, ``dapi retry``, ``dapi export``."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.cli.cli_case import CliTestCase, recorded


def page(*batches: Any, following: int | None = None) -> dict[str, Any]:
    return {"batches": list(batches), "next": following}


class ListTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.found = recorded("batches")[1]["batches"]
        self.client.set("GET", "/batches", page(*self.found))

    def test_a_line_for_each(self) -> None:
        lines = self.shown("batches").splitlines()
        self.assertEqual(lines[0], "BATCH NODE KIND STATE WAY STAGE NONCES AGE")
        self.assertEqual(lines[1], f"{self.found[0]['batch_id'][:12]} node2 generated in_flight websocket 6 5 20s")
        self.assertEqual(len(lines), 1 + len(self.found))

    def test_filters_go_along(self) -> None:
        self.shown("batches", "--node", "n ö", "--kind", "claim", "--state", "failed", "--limit", "7")
        self.assertEqual(
            self.client.calls, [("GET", "/batches?limit=7&node_id=n+%C3%B6&kind=claim&state=failed", None)]
        )

    def test_more_than_a_page(self) -> None:
        first, second, third = self.found[:3]
        self.client.set("GET", "/batches", page(*[first] * 1000, following=9), page(second, third, following=7))
        found = self.told("batches", "--limit", "1002")["batches"]
        self.assertEqual((len(found), found[-1]), (1002, third))
        asked = [path for _, path, _ in self.client.calls]
        self.assertEqual(asked, ["/batches?limit=1000", "/batches?limit=2&cursor=9"])

    def test_none(self) -> None:
        self.client.set("GET", "/batches", page())
        self.assertIn("keeps no batch yet", self.shown("batches"))
        self.assertIn("no batch matches", self.shown("batches", "--state", "failed"))

    def test_a_damaged_row_has_what_is_left(self) -> None:
        self.client.set("GET", "/batches", page({"seq": 4, "state": "damaged", "reason": "damaged on disk: kind"}))
        self.assertIn("- - - damaged - - - -", self.shown("batches"))

    def test_a_verdict_has_its_whole_id(self) -> None:
        verdict = {**self.found[0], "batch_id": "verdict-1000-gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p"}
        self.client.set("GET", "/batches", page(verdict))
        text = "".join(line.split(" ")[0] for line in self.run_dapi("batches").stdout.splitlines()[1:])
        self.assertEqual(text, verdict["batch_id"])

    def test_follow_shows_what_is_new_once(self) -> None:
        self.sleeps = 2
        old, *others = reversed(self.found)
        new = [{**each, "seq": each["seq"] + 100} for each in others]
        self.client.set("GET", "/batches", page(old), page(old), page(*reversed(new), old))
        lines = self.shown("batches", "--follow", code=1).splitlines()
        self.assertEqual([line.split()[1] for line in lines if line], [each["batch_id"][:12] for each in [old, *new]])

    def test_follow_outlives_a_restart_of_dapi(self) -> None:
        self.sleeps = 3
        first, second = ({**self.found[0], "seq": seq, "batch_id": f"b{seq}"} for seq in (1, 2))
        away = (503, {"error": "dapi is stopping"})
        self.client.set("GET", "/batches", page(first), away, away, page(second, first))
        result = self.run_dapi("batches", "--follow", code=1)
        self.assertEqual([line.split()[1] for line in result.stdout.splitlines() if line], ["b1", "b2"])
        self.assertEqual(result.stderr.count("dapi is stopping"), 1)

    def test_follow_goes_through_as_many_pages_as_came(self) -> None:
        self.sleeps = 1
        first, second, third = ({**self.found[0], "seq": seq, "batch_id": f"b{seq}"} for seq in (3, 2, 1))
        self.client.set("GET", "/batches", page(third), page(first, following=3), page(second, third))
        lines = self.run_dapi("batches", "--follow", "--json", code=1).stdout.splitlines()
        self.assertEqual([json.loads(line)["batch_id"] for line in lines if line], ["b1", "b2", "b3"])


class StoryTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.batch = recorded("batch-confirmed")[1]
        self.client.set("GET", "/batches/2039899c", self.batch)

    def test_how_it_came_and_what_became_of_it(self) -> None:
        shown = self.shown("batch", "2039899c")
        for line in (
            f"batch {self.batch['batch_id']}",
            "state confirmed",
            "came 2026-11-26 17:50:52 UTC, 20s ago",
            "ways 1 by websocket",
            "in block 28",
            f"transaction {self.batch['tx_hash']}",
            "code 0 in block 28, 2026-11-26 17:50:52 UTC",
        ):
            self.assertIn(f"\n{line}\n", f"\n{shown}\n")

    def test_each_transaction(self) -> None:
        refused = {"tx_hash": "A" * 64, "code": 5, "codespace": "sdk", "reason": "sdk 5: 3 are smaller than 5"}
        refused |= {"included_height": None, "first_at": None, "last_at": "2026-11-26T17:50:52.727Z", "times": 40}
        lost = {**refused, "code": None, "codespace": None, "reason": "in no block", "times": 1, "last_at": None}
        self.batch |= {"transactions": [refused, lost], "parts": {"in_flight": 2, "stored": 1}, "ways": None}
        self.client.set("GET", "/batches/2039899c", self.batch)
        shown = self.shown("batch", "2039899c")
        self.assertIn("40 times, this one the last", " ".join(shown.split()))
        self.assertIn("code 5: sdk 5: 3 are smaller than 5, 2026-11-26 17:50:52 UTC", shown)
        self.assertIn("\nin no block", shown)
        self.assertIn("parts 2 in flight, 1 stored", shown)

    def test_in_none_yet(self) -> None:
        self.client.set("GET", "/batches/2039899c", self.batch | {"transactions": []})
        self.assertIn("it was in no transaction yet", self.shown("batch", "2039899c"))

    def test_json(self) -> None:
        self.assertEqual(self.told("batch", "2039899c"), self.batch)

    def test_unknown(self) -> None:
        self.client.set("GET", "/batches/a%2Fb", {"error": "no batch has the id 'a/b'"}, status=404)
        self.assertEqual(self.refused("batch", "a/b"), "dapi: no batch has the id 'a/b'\n")
        told = json.loads(self.refused("batch", "a/b", "--json"))
        self.assertEqual(told, {"error": "no batch has the id 'a/b'", "exit_code": 1})


class RetryTests(CliTestCase):
    def test_one_by_the_beginning_of_its_id(self) -> None:
        self.client.set("GET", "/batches/abcdefgh", {"batch_id": "abcdefgh-whole"})
        done = {"message": "the batch is sent again", "batch_id": "abcdefgh-whole"}
        self.client.set("POST", "/batches/abcdefgh-whole/retry", done)
        self.assertEqual(self.shown("retry", "abcdefgh"), "batch abcdefgh-whole is sent again")
        self.assertEqual(self.told("retry", "abcdefgh"), done)

    def test_all_that_match_some_at_a_time(self) -> None:
        answers = ({"retried": 256, "next": 40}, {"retried": 3, "next": None})
        self.client.set("POST", "/batches/retry", *answers)
        self.assertEqual(self.shown("retry", "--all", "--node", "n1", "--yes"), "259 batches are sent again")
        asked = [path for _, path, _ in self.client.calls]
        self.assertEqual(asked, ["/batches/retry?node_id=n1", "/batches/retry?node_id=n1&cursor=40"])
        self.client.set("POST", "/batches/retry", *answers)
        self.assertEqual(self.told("retry", "--all", "--yes"), {"retried": 259})

    def test_asks_before(self) -> None:
        self.client.set("POST", "/batches/retry", {"retried": 1, "next": None})
        self.assertIn("nothing was done", self.refused("retry", "--all", "--kind", "seed", typed="n\n"))
        self.assertEqual(self.client.calls, [])
        result = self.run_dapi("retry", "--all", typed="y\n")
        self.assertEqual(result.stdout, "1 batch is sent again\n")

    def test_one_or_all(self) -> None:
        for arguments in ((), ("abc", "--all"), ("abc", "--node", "n1")):
            self.refused("retry", *arguments, code=2)
        self.assertEqual(self.client.calls, [])


class ExportTests(CliTestCase):
    def test_a_line_for_each_page_by_page(self) -> None:
        whole = recorded("export")[1]["batches"]
        self.client.set("GET", "/batches/export", page(whole[0], following=5), page(whole[1]))
        lines = self.run_dapi("export", "--state", "failed").stdout.splitlines()
        self.assertEqual([json.loads(line) for line in lines], whole)
        self.assertEqual(
            [path for _, path, _ in self.client.calls],
            ["/batches/export?limit=1000&state=failed", "/batches/export?limit=1000&cursor=5&state=failed"],
        )

    def test_nothing(self) -> None:
        self.client.set("GET", "/batches/export", page())
        self.assertEqual(self.run_dapi("export").stdout, "")
