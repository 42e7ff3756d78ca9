"""What twistd finds, and what it makes of a command line."""

from __future__ import annotations

import atexit
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet import reactor as global_reactor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactor
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dapi.tap import Options, _stop

reactor: Any = global_reactor


def plugin() -> IServiceMaker:
    """The plugin, found the way twistd finds it."""
    (found,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "dapi"]
    return found


class PluginTests(SynchronousTestCase):
    """``twistd dapi``."""

    def setUp(self) -> None:
        foreign = ("DAPI_", "KEY", "ACCOUNT_PUBKEY", "IS_TEST_NET", "API_CONFIG_PATH", "NODE_CONFIG_PATH")
        self.patch(os, "environ", {name: value for name, value in os.environ.items() if not name.startswith(foreign)})
        self.patch(sys, "excepthook", sys.excepthook)
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        self.patch(reactor, "seconds", reactor.seconds)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def parsed(self, *arguments: str) -> Options:
        options: Options = plugin().options()
        options.parseOptions(list(arguments))
        return options

    def test_is_listed(self) -> None:
        maker = plugin()
        self.assertTrue(verifyObject(IPlugin, maker))
        self.assertTrue(verifyObject(IServiceMaker, maker))
        self.assertIn("batches", maker.description)

    def test_options_override_the_file(self) -> None:
        config = self.folder / "config.yaml"
        config.write_text("api: {ml_server_port: 1, admin_server_port: 2, admin_server_host: 127.0.0.9}")
        settings = self.parsed("--config", str(config), "--callback-port", "0", "--database", "/x/y.db").settings
        self.assertEqual(settings.api.ml_server_port, 0)
        self.assertEqual(settings.api.admin_server_port, 2)
        self.assertEqual(settings.api.admin_server_host, "127.0.0.9")
        self.assertEqual(settings.storage.path, "/x/y.db")

    def test_every_option_reaches_its_setting(self) -> None:
        settings = self.parsed(
            *("--callback-host", "127.0.0.2", "--callback-port", "3", "--callback-url", "http://a:1"),
            *("--admin-host", "127.0.0.4", "--admin-port", "5", "--chain-url", "http://b:2", "-d", "z"),
        ).settings
        api = settings.api
        self.assertEqual((api.ml_server_host, api.ml_server_port, api.poc_callback_url), ("127.0.0.2", 3, "http://a:1"))
        self.assertEqual((api.admin_server_host, api.admin_server_port), ("127.0.0.4", 5))
        self.assertEqual((settings.chain_node.url, settings.storage.path), ("http://b:2", "z"))

    def test_wrong_value_is_a_usage_error_that_names_the_option(self) -> None:
        error = self.assertRaises(UsageError, self.parsed, "--admin-port", "http")
        self.assertIn("--admin-port", str(error))
        self.assertIn("0 to 65535", str(error))

    def test_makes_a_service_and_starts_nothing(self) -> None:
        database = self.folder / "outbox.db"
        options = self.parsed("--callback-port", "0", "--admin-port", "0", "--database", str(database))
        service = plugin().makeService(options)
        self.assertTrue(verifyObject(IService, service))
        self.assertFalse(service.running)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_is_there_at_the_start_is_collected_no_more(self) -> None:
        frozen: list[bool] = []
        self.patch(gc, "freeze", lambda: frozen.append(True))
        plugin().makeService(self.parsed("--database", str(self.folder / "outbox.db")))
        self.assertEqual(frozen, [True])

    def test_a_file_that_breaks_while_the_process_stops_already(self) -> None:
        class Stopping(MemoryReactor):
            def stop(self) -> None:
                raise ReactorNotRunning

        at_exit: list[object] = []
        self.patch(atexit, "register", at_exit.append)
        _stop(Stopping(), "the disk failed")
        self.assertEqual(len(at_exit), 1)

    def test_plugin_imports_nothing_of_ours(self) -> None:
        code = (
            "import sys, runpy; from twisted.plugin import getPlugins; "
            "from twisted.application.service import IServiceMaker; "
            "names = [maker.tapname for maker in getPlugins(IServiceMaker)]; assert 'dapi' in names, names; "
            "print([m for m in sys.modules if m.partition('.')[0] in ('dapi', 'klein', 'autobahn', 'treq')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "[]")
