"""What make_service does, and does not do, before it is started."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.application.service import IService, IServiceCollection
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dapi.config import ApiConfig, ChainNodeConfig, Config, StorageConfig, TlsConfig
from dapi.errors import ConfigError, DapiError
from dapi.service import make_service


class MakeServiceTests(SynchronousTestCase):
    """``make_service``; tests/integration/service runs what it makes."""

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

    def test_numpy_is_for_relays_alone(self) -> None:
        """It takes 17 MB of memory."""
        for relay, is_loaded in ((False, "False"), (True, "True")):
            code = (
                "import sys; from twisted.internet.testing import MemoryReactorClock;"
                "from dapi.config import Config, PocV2Config; from dapi.service import make_service;"
                f"make_service(Config(poc_v2=PocV2Config(watch=True, relay={relay}, api_url='http://127.0.0.1:1',"
                "api_admin_url='http://127.0.0.1:1', api_public_url='http://127.0.0.1:1')), MemoryReactorClock());"
                "print('numpy' in sys.modules)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            self.assertEqual((done.stdout.strip(), done.stderr), (is_loaded, ""))

    def test_finished_batches_are_kept_as_long_as_is_set(self) -> None:
        service = make_service(Config(storage=StorageConfig(keep_finished=90)), MemoryReactorClock())
        self.assertEqual(service._parts.retention.keep_days, 90)

    def test_every_part_is_there_before_the_start(self) -> None:
        key_file = self.folder / "key"
        key_file.write_text("1" * 64)
        key_file.chmod(0o600)
        chain_node = ChainNodeConfig(url="http://127.0.0.1:1", key_file=str(key_file))
        service = make_service(Config(chain_node=chain_node), MemoryReactorClock())
        assert service.chain is not None
        listeners = (service.callback_listener, service.admin_listener)
        made = service._parts
        kept = (made.node_quota, made.retention, made.backups)
        others = (service._watch, made.callback_tokens, made.large_batches, *kept, made.page)
        parts = {service.database, service.broker, service.chain, *listeners, *others}
        self.assertEqual(parts, set(service))
        self.assertEqual([part for part in service if part.running], [])
        self.assertEqual([listener.port for listener in listeners], [9100, 9200])
        self.assertEqual(service.callback_url, "http://127.0.0.1:9100/v1/poc-batches")
        self.assertIsNone(make_service(Config(), MemoryReactorClock()).chain)

    def test_a_key_is_looked_at_before_anything_starts(self) -> None:
        for chain_node, said in (
            (ChainNodeConfig(url="http://127.0.0.1:1"), "no key to sign with"),
            (ChainNodeConfig(url="http://127.0.0.1:1", key_file=str(self.folder / "none")), "none"),
        ):
            error = self.assertRaises(DapiError, make_service, Config(chain_node=chain_node), MemoryReactorClock())
            self.assertIn(said, str(error))

    def test_stop_before_start_is_harmless(self) -> None:
        service = make_service(Config(), MemoryReactorClock())
        self.assertIsNone(self.successResultOf(service.stopService()))

    def test_a_ca_file_is_looked_at_before_anything_starts(self) -> None:
        wrong = self.folder / "ca.pem"
        wrong.write_text("no certificate")
        for path, said in ((wrong, "holds no certificate"), (self.folder / "none.pem", "cannot be read")):
            config = Config(tls=TlsConfig(ca_file=str(path)))
            error = self.assertRaises(ConfigError, make_service, config, MemoryReactorClock())
            self.assertIn(str(path), str(error))
            self.assertIn(said, str(error))

    def test_a_certificate_is_looked_at_before_anything_starts(self) -> None:
        none = str(self.folder / "none.pem")
        plain_url = ApiConfig(poc_callback_url="http://10.0.0.5:9100")
        for tls, api, said in (
            (TlsConfig(certificate=none, key=none), ApiConfig(), f"tls.certificate {none} cannot be read"),
            (TlsConfig(certificate=none), ApiConfig(), "tls.certificate is set, and tls.key is not"),
            (TlsConfig(key=none), ApiConfig(), "tls.key is set, and tls.certificate is not"),
            (TlsConfig(client_ca_file=none), ApiConfig(), "tls.client_ca_file is set, and tls.certificate is not"),
            (TlsConfig(certificate=none, key=none), plain_url, "api.poc_callback_url begins with http://"),
        ):
            error = self.assertRaises(ConfigError, make_service, Config(tls=tls, api=api), MemoryReactorClock())
            self.assertIn(said, str(error))
