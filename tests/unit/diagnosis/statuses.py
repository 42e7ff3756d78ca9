"""The status of a dapi of which all is well, and what a test changes in it."""

from __future__ import annotations

import copy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.checks import findings
from dapi.diagnosis.problem import Finding

NODE: dict[str, Any] = {
    "node_id": "a",
    "node_num": 1,
    "enabled": True,
    "command": None,
    "last": {
        "command": "StartPocCommand",
        "result": {"succeeded": True, "status": "GENERATING", "error": None, "failure": None},
    },
    "websocket": {"state": "open", "reason": None, "trouble": None},
    "batches": {"by_http": 0},
    "poc_url": "http://10.0.0.7:8080",
    "other_num": None,
}
STANDING: dict[str, Any] = {
    "intended": "GENERATE",
    "current": "GENERATING",
    "problem": None,
    "failure": None,
    "found": None,
    "other_run": None,
    "silent_seconds": 4.0,
    "tries": 0,
}
STAGE: dict[str, Any] = {
    "height": 1000,
    "late": [],
    "seed_problem": None,
    "preserved_problem": None,
    "nodes_in_vain": [],
    "open_kinds": ["generated", "seed"],
}
HOST: dict[str, Any] = {
    "node_version": {"version": "v3.0.8", "unusable": None},
    "hardware_nodes": {
        "differs": False,
        "unknown_models": {},
        "is_refused": False,
        "has_no_effect": False,
        "times_undone": 0,
    },
    "claim": {"epoch_index": 7, "owed": 0, "unpaid": None},
    "weight": {"epoch_index": 7, "weight": 5, "effective_weight": 5, "uncounted": {}},
    "problems": {},
    "late": [],
}
VALIDATION: dict[str, Any] = {
    "height": 1000,
    "is_over": False,
    "problem": "the batches are not queried yet",
    "is_failing": False,
    "participants": 30,
    "unanswered": 0,
}
# dapi follows a chain, and a node generates.
WELL: dict[str, Any] = {
    "database": {
        "state": "ok",
        "reason": "",
        "since": 1.0,
        "writing_seconds": 0.1,
        "commit_p99_seconds": 0.02,
        "path": "/x.db",
    },
    "outbox": {"pending": 0, "node_quota": {"refused": 0, "full": {}}},
    "callbacks": {
        "url": "http://10.0.0.5:9100/v1/poc-batches",
        "port": 9100,
        "is_url_set": True,
        "unproven": "refused",
        "refused_by_address": {"10.9.9.9": 3, "10.9.9.8": 1},
        "refused_lately": False,
        "tls": None,
    },
    "admin": {"host": "127.0.0.1", "port": 9200, "tls": None},
    "broker": {"is_loaded": True, "problem": None},
    "nodes": [NODE],
    "chain": {
        "state": "submitting",
        "reason": None,
        "trouble": None,
        "held": {},
        "causes": {},
        "problem": None,
        "grant_expires": None,
        "transactions_in_flight": 2,
        "signer": "gonka1signer",
        "participant": "gonka1participant",
        "clock_offset_seconds": 0.0,
        "nodes": [{"name": "c:26657", "standing": "sound", "last_problem": None}],
        "poc": {
            "problem": None,
            "situation": {"height": 1010, "phase": "PoCGenerate", "blocks_left": 55},
            "stage": STAGE,
            "not_of_their_stage": {"kept": [], "refused": {}, "not_asked_for": {}},
            "nodes": {"a": STANDING},
            "validation": VALIDATION,
            "host": HOST,
        },
    },
    "process": {"open_files": 40, "max_files": 1024},
    "losses": [],
}
NO_CHAIN = {"state": "not configured", "reason": "no chain is configured"}


def changed(**changes: Any) -> Any:
    """The status after changes, each of them a path with ``__`` between its names."""
    status: Any = copy.deepcopy(WELL)
    for path, value in changes.items():
        *names, last = [int(name) if name.isdigit() else name for name in path.split("__")]
        place = status
        for name in names:
            place = place[name]
        place[last] = value
    return status


class CheckTestCase(SynchronousTestCase):
    """Asks the checks about a status that is well but for what a test changes in it."""

    def found(self, **changes: Any) -> list[Finding]:
        """What is found after changes; see ``changed``."""
        return findings(changed(**changes))

    def one(self, problem_id: str, **changes: Any) -> Finding:
        """The only finding, which has this id."""
        (finding,) = self.found(**changes)
        self.assertEqual(finding.id, problem_id)
        return finding

    def standing(self, problem_id: str, **changes: Any) -> Finding:
        """The only finding after a change of the node's standing."""
        return self.one(problem_id, chain__poc__nodes__a=STANDING | changes)
