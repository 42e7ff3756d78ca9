"""Take the pictures of the documents from a dapi that runs in the demo: ``make screenshots``.

It needs Debian's chromium. ``docs/pictures`` has what it writes: the status page, and the command line's ``status`` and
``epochs`` in a terminal of 80 columns.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
# In a window for batches, when an epoch has been paid for.
_PHASE, _BLOCKS_LEFT, _PAID_EPOCHS = "PoCGenerate", 7, 1
_PATIENCE_SECONDS = 150
_COLUMNS = 80


def ask(url: str) -> Any:
    """GET from the admin API."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait_for_something_to_see(url: str) -> None:
    """Wait until an epoch is paid for, and the next stage is under way."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        situation = ask(f"{url}/admin/v1/status")["chain"]["poc"]["situation"]
        paid = [each for each in ask(f"{url}/admin/v1/epochs")["epochs"] if (each.get("claim") or {}).get("paid")]
        if len(paid) >= _PAID_EPOCHS and situation["phase"] == _PHASE and situation["blocks_left"] <= _BLOCKS_LEFT:
            return
        # Several looks for each block of the demo.
        time.sleep(0.2)
    sys.exit("the demo did not come that far")


def take_page(browser: Browser, url: str, path: Path) -> None:
    """Take the status page as a window shows it."""
    page = browser.new_page(viewport={"width": 1200, "height": 860}, color_scheme="light")
    page.goto(url)
    page.get_by_text(_PHASE).first.wait_for()
    # For the lines of the last minutes.
    page.wait_for_timeout(3000)
    page.screenshot(path=path)
    page.close()


def take_terminal(browser: Browser, url: str, path: Path, *command: str) -> None:
    """Run a command of ``dapi``, and take what it prints on a terminal."""
    environ = {**os.environ, "DAPI_URL": url, "FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS)}
    environ.pop("NO_COLOR", None)
    program = Path(sys.executable).parent / "dapi"
    done = subprocess.run([program, *command], env=environ, capture_output=True, text=True, check=True)
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(f"$ dapi {' '.join(command)}\n{done.stdout}"))
    picture = console.export_svg(title="dapi")
    width, height = (float(each) for each in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)[0])
    page = browser.new_page(viewport={"width": int(width), "height": int(height)})
    page.set_content(f"<body style='margin: 0'>{picture}</body>")
    page.locator("svg").screenshot(path=path, omit_background=True)
    page.close()


def main() -> int:
    """Take all pictures, and print their names and sizes."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium: install Debian's package chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w") as output:
        demo = subprocess.Popen([sys.executable, "-u", "-m", "dapi.simulator.demo"], stdout=output, cwd=ROOT)
        try:
            url, end = None, time.monotonic() + _PATIENCE_SECONDS
            while url is None and demo.poll() is None and time.monotonic() < end:
                # A file, not a pipe: a pipe would have to be read to the end, or it fills.
                time.sleep(0.2)
                url = re.search(r"^admin: (http\S+)", Path(output.name).read_text(), re.MULTILINE)
            if url is None:
                sys.exit("the demo has ended, or does not come up")
            arguments = [] if os.getuid() else ["--no-sandbox"]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
                wait_for_something_to_see(url[1])
                take_page(browser, url[1], PICTURES / "page.png")
                take_terminal(browser, url[1], PICTURES / "status.png", "status")
                take_terminal(browser, url[1], PICTURES / "epochs.png", "epochs", "--limit", "2", "--nodes")
                browser.close()
        finally:
            demo.terminate()
            demo.wait()
    for path in sorted(PICTURES.glob("*.png")):
        sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
