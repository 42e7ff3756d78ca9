"""What dapi offers to those who build on it, and that looking at it costs nothing."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import dapi

# What docs/embedding.md tells people to import.
PUBLIC = {
    "dapi.config": ("Config", "load_config"),
    "dapi.database": ("Database",),
    "dapi.errors": ("ConfigError", "DapiError", "MLNodeError", "MessageError", "StartError", "StoreError"),
    "dapi.messages": ("Kind", "ProofBatch", "Receipt", "State", "ValidatedBatch", "Via", "content_id"),
    "dapi.mlnode.client": ("InitRequest", "MLNodeClient", "MLNodeState"),
    "dapi.poc.batch_handler": ("BatchHandler", "Recorder"),
    "dapi.poc.websocket_client": ("WebSocketClient",),
    "dapi.poc.websocket_settings": ("WebSocketSettings",),
    "dapi.service": ("DapiService", "make_service"),
}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(dapi.__path__, "dapi.") if not module.name.endswith("_pb2")
)


class ExportTests(SynchronousTestCase):
    """The public API."""

    def test_is_there_and_documented(self) -> None:
        for module, names in PUBLIC.items():
            for name in names:
                self.assertTrue(inspect.getdoc(getattr(importlib.import_module(module), name)), f"{module}.{name}")

    def test_the_document_lists_it(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(dapi[\w.]*)` \| (`.*?`) \|", page, re.MULTILINE)
        told = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
        self.assertEqual(told, {module: set(names) for module, names in PUBLIC.items()})

    def test_all_lists_what_is_there(self) -> None:
        for name in MODULES:
            module = importlib.import_module(name)
            for exported in getattr(module, "__all__", ()):
                self.assertTrue(hasattr(module, exported), f"{name}.{exported}")

    def test_every_module_says_what_it_is_for(self) -> None:
        self.assertEqual([name for name in MODULES if not importlib.import_module(name).__doc__], [])

    def test_importing_everything_installs_no_reactor(self) -> None:
        code = (
            f"import importlib, sys; [importlib.import_module(name) for name in {MODULES!r}];"
            "print(sorted({'twisted.internet.reactor', 'klein'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        self.assertEqual((done.stdout.strip(), done.stderr), ("[]", ""))
