"""What a person who has never seen it finds on the page in each of the commonest troubles: what is wrong, what to do.

The pictures in ``build/screenshots`` are for people who judge it by eye.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest_twisted
from playwright.sync_api import Page, expect
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from dapi.diagnosis.book import ProblemBook
from dapi.diagnosis.checks import findings
from dapi.diagnosis.problem import Problem
from tests import programs
from tests.integration.browser import browse, keep_screenshot
from tests.integration.server.test_page import FakeDapi
from tests.page_data import status
from tests.unit.diagnosis.statuses import NODE, STANDING, changed

pytestmark = programs.needs("chromium")

_DAY = 86_400.0
_LOSS = {
    "height": 1000,
    "kind": "generated",
    "state": "failed",
    "is_damaged": False,
    "messages": 3,
    "reason": "sdk 18: no",
}
_STRIPPED = {"cause": "http", "code": 404, "reason": "404: no WebSocket in this node", "since": 1.0, "names": ()}


def node_trouble(failure: str, problem: str) -> dict[str, Any]:
    return {"chain__poc__nodes__a": STANDING | {"failure": failure, "problem": problem}}


def held(cause: str, words: str) -> dict[str, Any]:
    return {
        "chain__held": {"generated": words},
        "chain__causes": {"generated": cause},
        **{f"chain__{name}": value for name, value in (("trouble", "held"), ("reason", words), ("problem", words))},
    }


TROUBLES: dict[str, dict[str, Any]] = {
    "node-down": node_trouble("unreachable", "a: state: Connection was refused by other side"),
    "node-refusing": node_trouble("refused", "a: init/generate: 503: the model is not loaded"),
    "websocket-not-found": {
        "nodes__0__websocket": {"state": "refused", "reason": _STRIPPED["reason"], "trouble": _STRIPPED}
    },
    "callbacks-never-seen": {
        "nodes": [NODE | {"websocket": {"state": "stopped", "reason": None, "trouble": None}}],
    },
    "chain-unreachable": {"chain__trouble": "unreachable", "chain__reason": "not reachable: c:26657: refused"},
    "chain-halted": {"chain__trouble": "halted", "chain__reason": "halted: no block for 95 s"},
    "database-full": {"database__state": "full", "database__reason": "2 MiB are free, 16 are needed"},
    "key-not-participants": held("key", "sdk 4: signature verification failed"),
    "grant-missing": held("grant", "authz 2: authorization not found"),
    "messages-failed": {"losses": [_LOSS]},
}


def problems_of(changes: dict[str, Any]) -> list[Problem]:
    """The problems of a dapi with these troubles, for a day already."""
    book, now = ProblemBook(), IReactorTime(reactor).seconds()
    book.update(findings(changed(**changes)), now - _DAY, 1_800_000_000.0)
    return book.update(findings(changed(**changes)), now, 1_800_000_000.0 + _DAY).problems


@pytest_twisted.ensureDeferred
async def test_each_trouble_is_told_with_what_to_do() -> None:
    dapi = FakeDapi(status(1))

    def visit(page: Page) -> None:
        for problem_id, changes in TROUBLES.items():
            problems = problems_of(changes)
            assert problem_id in [problem.id for problem in problems]
            dapi.status = status(1, problems=msgspec.to_builtins(problems))
            for problem in problems:
                shown = page.locator(f'#problems li[data-id="{problem.id}"]')
                for text in (problem.severity, problem.problem, problem.to_do, f"docs/problems.md, {problem.chapter}"):
                    expect(shown).to_contain_text(text)
            expect(page.locator("#problems li")).to_have_count(len(problems))
            keep_screenshot(page, f"problem-{problem_id}")
        dapi.status = status(1)
        expect(page.locator("#verdict-heading")).to_have_text("All is well")
        # All is well, but this is no time for a restart.
        dapi.advice = {"safe": False, "reason": "the chain is in PoCGenerate", "blocks_left": 0}
        expect(page.locator("#restart")).to_have_text("Safe to restart: no, the chain is in PoCGenerate.")
        keep_screenshot(page, "restart-unsafe")

    async with dapi.serving() as url:
        await browse(url, visit)
