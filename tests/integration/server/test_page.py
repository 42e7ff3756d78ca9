"""The status page in a real browser: what a person sees and does."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from twisted.web.server import Request

from dapi.http.answers import json_answer, new_app
from dapi.http.routes import Route, add_routes
from dapi.server.admin_door import AdminDoor
from dapi.server.page.live import LivePage
from dapi.server.page.routes import PageRoutes
from tests import programs
from tests.integration.browser import browse, keep_screenshot
from tests.integration.server.http_tools import serving
from tests.integration.whole_dapi import FIRST_POC, WholeDapi, whole  # noqa: F401 - a fixture
from tests.page_data import POC_V2, PROBLEM, node, status

pytestmark = programs.needs("chromium")
reactor: Any = global_reactor

STAGE = {
    "height": 65,
    "epoch_index": 3,
    "is_confirmation": False,
    "start": 65,
    "generate_wind_down": 73,
    "generation_end": 75,
    "batches": {"first": 66, "last": 77},
    "validation_start": 78,
    "validate_wind_down": 84,
    "validations": {"first": 79, "last": 86},
    "inference_from": 86,
    "nodes": {"node1": {"generated": 12, "nonces": 2400, "stored": 1, "in_flight": 2, "confirmed": 7, "failed": 1}},
    "weight": None,
    "effective_weight": None,
    "claim": None,
}


class FakeDapi:
    """Serves the page with a status that the test chooses."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.status: Any = shown
        self.advice: dict[str, Any] | None = {"safe": True, "reason": None, "blocks_left": 210}
        self.live = LivePage(reactor, status=lambda: self.status, restart=lambda: self.advice, counts=dict)

    def drop_all(self) -> None:
        """Lose all connections."""
        for channel in list(self.site._channels):
            channel.abort()

    @asynccontextmanager
    async def serving(self, token: str | None = None) -> AsyncIterator[str]:
        app = new_app()

        def epochs(request: Request) -> bytes:
            return json_answer(request, {"epochs": [STAGE]})

        def batches(request: Request) -> bytes:
            return json_answer(request, {"batches": [], "next": None})

        apis = (Route("GET", "/admin/v1/epochs", epochs), Route("GET", "/admin/v1/batches", batches))
        add_routes(app, (*PageRoutes(self.live).routes(), *apis))
        self.live.startService()
        try:
            async with serving(AdminDoor(reactor, app.resource(), token)) as listener:
                self.site = listener.site
                yield f"http://127.0.0.1:{listener.port}/"
        finally:
            await self.live.stopService()


TOKEN = "a-token-of-this-test"


def problem(severity: str, id_: str, **changes: Any) -> dict[str, Any]:
    return PROBLEM | {"severity": severity, "id": id_} | changes


ON_FIRE = [
    problem("critical", "chain-halted", node_id=None, problem="the chain stands at block 70", to_do="wait for it"),
    problem("critical", "node-fails"),
    problem("warning", "admin-open", node_id=None, problem="the admin API is open", to_do="bind it to 127.0.0.1"),
    problem("info", "not-driving", node_id=None, problem="<b>&amp; dapi does not drive</b>", to_do="nothing"),
]


def refused(num: int) -> dict[str, Any]:
    websocket = node(num)["websocket"] | {"state": "refused", "reason": "404: no WebSocket <i>here</i>", "until": 2e9}
    return node(num, websocket=websocket)


@pytest_twisted.ensureDeferred
async def test_all_is_well() -> None:
    def visit(page: Page) -> None:
        expect(page.locator("#verdict-heading")).to_have_text("All is well")
        expect(page.locator("#restart")).to_have_text("Safe to restart: yes, for 210 blocks.")
        expect(page.locator("#situation")).to_contain_text("PoCGenerate of epoch 3, 4 blocks until the next phase")
        expect(page.locator("#stage .label-now")).to_have_text("block 70")
        expect(page.locator("#stage .phase.now")).to_have_count(1)
        expect(page.locator("#counts")).to_contain_text("confirmed30")
        expect(page.locator("#nodes tbody tr")).to_have_count(3)
        expect(page.locator("#ledger tbody tr").first).to_contain_text("block 65")
        page.get_by_role("button", name="1", exact=True).click()
        expect(page.locator("#ledger tr.sub")).to_contain_text("node1")
        assert page.title() == "dapi"

    dapi = FakeDapi(status(3))
    async with dapi.serving() as url:
        await browse(url, visit)


@pytest_twisted.ensureDeferred
async def test_poc_v2_is_shown_where_it_is_set() -> None:
    dapi = FakeDapi(status(1))
    async with dapi.serving() as url:

        def visit(page: Page) -> None:
            expect(page.locator("#verdict-heading")).to_have_text("All is well")
            expect(page.locator("#poc-v2")).to_be_hidden()
            dapi.status = status(1, **POC_V2)
            expect(page.locator("#poc-v2-where")).to_have_text("PoCGenerate, block 1,728,030.")
            for text in ("40 callbacks kept", "3 wait", "5 held", "is away: Connection was refused"):
                expect(page.locator("#poc-v2-relay")).to_contain_text(text)
            rows = page.locator("#poc-v2-stages tbody tr")
            expect(rows).to_have_count(2)
            for text in ("1,728,000", "confirmation", "Qwen/<b>Qwen3</b>", "1,260", "1,250", "825", "33 %", "3 of 7"):
                expect(rows.first).to_contain_text(text)
            found = Axe().run(page).response["violations"]
            assert [each for each in found if each["impact"] in ("serious", "critical")] == []

        await browse(url, visit)


@pytest_twisted.ensureDeferred
async def test_problems_come_first_in_words_and_as_text() -> None:
    def visit(page: Page) -> None:
        expect(page.locator("#verdict-heading")).to_have_text("2 problems that cost batches")
        items = page.locator("#problems li")
        expect(items).to_have_count(4)
        for item, each in zip(items.all(), ON_FIRE, strict=True):
            for text in (each["severity"], each["problem"], each["to_do"]):
                expect(item).to_contain_text(text)
        assert page.title() == "(3) dapi"
        # The node with a problem comes first; what came from outside is text.
        expect(page.locator("#nodes tbody th").first).to_contain_text("node1")
        expect(page.locator("#nodes tbody tr").nth(1)).to_contain_text("404: no WebSocket <i>here</i>")
        expect(page.locator("#nodes tbody tr").nth(1)).to_contain_text("next try in")
        dapis = "Safe to restart: no, the chain is in PoCGenerate."
        containers = "The api container: no, it stores; yes from block 1728085 on."
        expect(page.locator("#restart")).to_have_text(f"{dapis} {containers}")

    dapi = FakeDapi(status(problems=ON_FIRE, nodes=[node(1), refused(2)]))
    dapi.advice = {"safe": False, "reason": "the chain is in PoCGenerate", "blocks_left": 0}
    dapi.advice["api_container"] = {"safe": False, "reason": "it stores", "blocks_left": 0, "safe_at": 1728085}
    async with dapi.serving() as url:
        await browse(url, visit)


@pytest_twisted.ensureDeferred
async def test_it_stays_current_and_says_when_it_is_not() -> None:
    dapi = FakeDapi(status(2))
    silence: Deferred[Any] = Deferred()
    async with dapi.serving() as url:

        def visit(page: Page) -> None:
            expect(page.locator("#fresh")).to_have_text("live")
            dapi.status = status(problems=ON_FIRE, nodes=[node(2, enabled=False), node(3)])
            expect(page.locator("#problems li")).to_have_count(4)
            expect(page.locator("#nodes tbody tr")).to_have_count(2)
            expect(page.locator("#nodes tbody tr", has_text="node2")).to_contain_text("disabled")
            dapi.status = status(2)
            expect(page.locator("#verdict-heading")).to_have_text("All is well")
            # dapi says nothing, and then has no more to say than before.
            dapi.status = silence
            expect(page.locator("#fresh")).to_contain_text("old: dapi does not answer")
            dapi.status = status(2)
            reactor.callFromThread(silence.callback, status(2))
            expect(page.locator("#fresh")).to_have_text("live")
            # The stream ends, as when dapi is restarted, and comes back by itself.
            blockingCallFromThread(reactor, dapi.drop_all)
            dapi.status = status(3)
            expect(page.locator("#nodes tbody tr")).to_have_count(3)

        await browse(url, visit)


@pytest_twisted.ensureDeferred
async def test_who_is_not_logged_in_is_asked_to() -> None:
    dapi = FakeDapi(status(2))
    async with dapi.serving(TOKEN) as url:

        def visit(page: Page) -> None:
            page.get_by_label("Admin token").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_contain_text("wrong")
            page.get_by_label("Admin token").fill(TOKEN)
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("#nodes tbody tr")).to_have_count(2)
            # The session ends elsewhere; the page learns it when its stream comes back.
            page.evaluate("() => fetch('/logout', {method: 'POST'})")
            blockingCallFromThread(reactor, dapi.drop_all)
            expect(page.get_by_label("Admin token")).to_be_visible()

        await browse(url, visit)


@pytest.mark.parametrize("name", ["light", "dark", "phone"])
@pytest_twisted.ensureDeferred
async def test_axe_finds_nothing_serious(name: str) -> None:
    def visit(page: Page) -> Any:
        expect(page.locator("#problems li")).to_have_count(4)
        expect(page.locator("#stage .label-now")).to_be_attached()
        keep_screenshot(page, f"on-fire-{name}")
        found = Axe().run(page).response["violations"]
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "it is too wide"
        return [each for each in found if each["impact"] in ("serious", "critical")]

    nodes = [node(1), refused(2), *(node(num + 3) for num in range(48))]
    dapi = FakeDapi(status(problems=ON_FIRE, nodes=nodes))
    async with dapi.serving() as url:
        serious = await browse(url, visit, is_dark=name == "dark", width=390 if name == "phone" else 1280)
    assert not serious, json.dumps(serious, indent=1)


@pytest_twisted.ensureDeferred
async def test_a_thousand_nodes_are_found() -> None:
    def visit(page: Page) -> None:
        rows = page.locator("#nodes tbody tr")
        expect(rows).to_have_count(200)
        page.get_by_label("Filter").fill("node77")
        expect(rows).to_have_count(11)
        page.get_by_label("Filter").fill("")
        page.get_by_role("button", name="Show all 1,000").click()
        expect(rows).to_have_count(1000)
        keep_screenshot(page, "thousand")

    dapi = FakeDapi(status(1000))
    async with dapi.serving() as url:
        await browse(url, visit)


@pytest_twisted.ensureDeferred
async def test_what_a_person_does(whole: WholeDapi) -> None:  # noqa: F811 - the fixture
    whole.node("node1")
    whole.node("node2", websocket=False)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    port = service.admin_listener.port

    def visit(page: Page) -> None:
        # A batch comes over each way, and its story is told.
        row = page.locator("#nodes tbody tr", has_text="node1")
        expect(row).to_contain_text("open for")
        expect(page.locator("#batches tbody td").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
        page.locator("#batches tbody button.link").first.click()
        expect(page.locator("#story")).to_contain_text("batch id")
        page.locator("#story").get_by_role("button", name="Close").click()
        # One that has no WebSocket is tried at once.
        page.get_by_role("button", name="Try the WebSocket of node2 now").click()
        expect(page.locator("#toast")).to_have_text("node2: its WebSocket is tried now.")
        expect(page.get_by_role("button", name="Try the WebSocket of node1 now")).to_be_hidden()
        # A node is disabled only after a question.
        page.get_by_role("button", name="Disable node1").click()
        page.get_by_role("button", name="Leave it").click()
        expect(page.get_by_role("button", name="Disable node1")).to_be_visible()
        page.get_by_role("button", name="Disable node1").click()
        page.get_by_role("button", name="Do it").click()
        expect(page.get_by_role("button", name="Enable node1")).to_be_visible()
        expect(row).to_contain_text("disabled")
        keep_screenshot(page, "real")

    await browse(f"http://127.0.0.1:{port}/", visit)
    assert not service.broker.worker_by_num(1).node.enabled
