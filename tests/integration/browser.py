"""A real browser, for tests of the page: Debian's Chromium, driven by Playwright in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from playwright.sync_api import Browser, Page, expect, sync_playwright
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tests import programs
from tests.integration.waiting import soon

T = TypeVar("T")

# A browser needs more of a busy machine than anything else; one step of a visit may take a third of it.
PATIENCE_SECONDS = 180.0
_STEP_MILLISECONDS = 1000 * PATIENCE_SECONDS / 3
# A browser that looks for its maker's servers is slow where there are none.
_ARGUMENTS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

expect.set_options(timeout=_STEP_MILLISECONDS)


async def browse(url: str, visit: Callable[[Page], T], *, is_dark: bool = False, width: int = 1280) -> T:
    """Open a page and return what ``visit`` makes of it, in a thread; errors of the page's scripts raise."""
    pool = ThreadPool(1, 1)
    pool.start()
    try:
        return await soon(
            deferToThreadPool(IReactorFromThreads(reactor), pool, _visit, url, visit, is_dark, width), PATIENCE_SECONDS
        )
    finally:
        pool.stop()


def _visit(url: str, visit: Callable[[Page], T], is_dark: bool, width: int) -> T:
    with _chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if is_dark else "light")
        page.set_default_timeout(_STEP_MILLISECONDS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        page.goto(url)
        result = visit(page)
        assert not faults, faults
        return result


@contextmanager
def _chromium() -> Iterator[Browser]:
    # Root, as in a container, has no sandbox.
    sandbox = () if os.getuid() else ("--no-sandbox",)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=programs.path_of("chromium"), args=[*_ARGUMENTS, *sandbox], timeout=_STEP_MILLISECONDS
        )
        try:
            yield browser
        finally:
            browser.close()


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the whole page below ``build/screenshots``, for people."""
    folder = Path("build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
