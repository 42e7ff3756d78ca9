"""What is told of a run of mutation testing, and which mutants the next run tries."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.mutants import forget_the_living, table


class MutantTests(SynchronousTestCase):
    def test_files_apart_and_all_together(self) -> None:
        results = {
            "dapi.outbox.quota.x_a__mutmut_1": "killed",
            "dapi.outbox.quota.x_a__mutmut_2": "survived",
            "dapi.outbox.counts.x_b__mutmut_1": "timeout",
            "dapi.outbox.counts.x_b__mutmut_2": "killed",
        }
        self.assertEqual(
            table(results),
            [
                "dapi.outbox.counts: 2 of 2 noticed (100%); 1 timeout",
                "dapi.outbox.quota: 1 of 2 noticed (50%); 1 survived",
                "all: 3 of 4 noticed (75%); 1 survived, 1 timeout",
            ],
        )

    def test_what_was_noticed_is_not_tried_again(self) -> None:
        folder = Path(self.mktemp())
        path = folder / "mutants" / "dapi" / "outbox" / "quota.py.meta"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"exit_code_by_key": {"killed": 1, "lives": 0, "no test": 33, "endless": -24}}))
        forget_the_living(folder)
        codes = json.loads(path.read_bytes())["exit_code_by_key"]
        self.assertEqual(codes, {"killed": 1, "lives": None, "no test": None, "endless": -24})
