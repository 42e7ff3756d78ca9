"""What make_service does, and does not do, before it is started."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from twisted.application.service import IService, IServiceCollection
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dapi.config import Config, StorageConfig, WebSocketConfig
from dapi.errors import ConfigError
from dapi.service import make_service


class MakeServiceTests(SynchronousTestCase):
    """``make_service``; tests/integration/test_service.py runs what it makes."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_gives_a_stopped_service_that_touched_nothing(self) -> None:
        reactor = MemoryReactorClock()
        config = Config(storage=StorageConfig(path=str(self.folder / "outbox.db")))
        state = random.getstate()
        service = make_service(config, reactor)
        self.assertTrue(verifyObject(IService, service))
        self.assertTrue(verifyObject(IServiceCollection, service))
        self.assertFalse(service.running)
        self.assertEqual(reactor.tcpServers, [])
        self.assertEqual(reactor.getDelayedCalls(), [])
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(random.getstate(), state)

    def test_stop_before_start_is_harmless(self) -> None:
        service = make_service(Config(), MemoryReactorClock())
        self.assertIsNone(self.successResultOf(service.stopService()))

    def test_a_ca_file_is_looked_at_before_anything_starts(self) -> None:
        wrong = self.folder / "ca.pem"
        wrong.write_text("no certificate")
        for path, said in ((wrong, "holds no certificate"), (self.folder / "none.pem", "cannot be read")):
            config = Config(websocket=WebSocketConfig(ca_file=str(path)))
            error = self.assertRaises(ConfigError, make_service, config, MemoryReactorClock())
            self.assertIn(str(path), str(error))
            self.assertIn(said, str(error))
