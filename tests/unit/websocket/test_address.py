"""From a node's PoC URL to the WebSocket URL, its parts, and an endpoint that checks whom it reaches."""

import os
import tempfile

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ConfigError
from dapi.poc.websocket_url import websocket_address
from dapi.websocket.address import websocket_endpoint
from dapi.websocket.settings import ConnectionSettings

GOOD = {
    "http://10.0.0.1:8080": "ws://10.0.0.1:8080/api/v1/pow/ws",
    "http://10.0.0.1:8080/": "ws://10.0.0.1:8080/api/v1/pow/ws",
    "https://node.example": "wss://node.example:443/api/v1/pow/ws",
    "https://node.example:8443/v3.0.8/segment": "wss://node.example:8443/v3.0.8/segment/api/v1/pow/ws",
    "http://node:8080/v3.0.8//": "ws://node:8080/v3.0.8/api/v1/pow/ws",
    "HTTP://Node:8080": "ws://node:8080/api/v1/pow/ws",
    "node:8080": "ws://node:8080/api/v1/pow/ws",
    "node:8080/v3.0.8": "ws://node:8080/v3.0.8/api/v1/pow/ws",
    "10.0.0.1": "ws://10.0.0.1:80/api/v1/pow/ws",
    "[::1]:8080": "ws://[::1]:8080/api/v1/pow/ws",
    "http://[2001:db8::1]:8080/x": "ws://[2001:db8::1]:8080/x/api/v1/pow/ws",
    "ws://node:8080": "ws://node:8080/api/v1/pow/ws",
    "wss://node/": "wss://node:443/api/v1/pow/ws",
    "ws://node:8080/api/v1/pow/ws": "ws://node:8080/api/v1/pow/ws",
    "wss://node/some/where/else": "wss://node:443/some/where/else",
    "wss://node/ws?token=secret": "wss://node:443/ws?token=secret",
    "http://node:8080/api/v1/pow/ws": "ws://node:8080/api/v1/pow/ws",
}

BAD = {
    "": "host",
    "http://": "host",
    "http://:8080": "host",
    "ftp://node:8080": "scheme",
    "http://node:0": "port",
    "http://node:65536": "port",
    "http://node:eight": "port",
    "http://user:hunter2@node:8080": "user or password",
    "http://node:8080/?token=hunter2": "query",
    "http://node:8080/#hunter2": "fragment",
    "http://no de:8080": "character",
    "http://node:8080/\r\nX-Evil: 1": "character",
    "http://nöde:8080": "character",
    "http://ml_node:8080": "host",
    "http://-node:8080": "host",
    "http://[::1:8080": "read",
    "ws://unix/tmp/socket": "host",
}


class UrlTests(SynchronousTestCase):
    def test_good(self) -> None:
        for poc_url, expected in GOOD.items():
            address = websocket_address(poc_url)
            self.assertEqual(f"{address}{address.resource}", expected, poc_url)

    def test_a_websocket_url_stays_what_it_is(self) -> None:
        for url in GOOD.values():
            address = websocket_address(url)
            self.assertEqual(f"{address}{address.resource}", url)

    def test_bad(self) -> None:
        for poc_url, word in BAD.items():
            with self.assertRaises(ConfigError, msg=poc_url) as caught:
                websocket_address(poc_url)
            self.assertIn(word, str(caught.exception), poc_url)
            self.assertNotIn("hunter2", str(caught.exception))

    def test_parts(self) -> None:
        address = websocket_address("https://[2001:db8::1]:8443/v3")
        self.assertTrue(address.is_secure)
        self.assertEqual((address.host, address.port), ("2001:db8::1", 8443))
        self.assertEqual(address.host_header, "[2001:db8::1]")
        self.assertEqual(address.resource, "/v3/api/v1/pow/ws")
        self.assertEqual(websocket_address("https://node").port, 443)
        self.assertEqual(websocket_address("node").port, 80)

    def test_a_token_is_asked_for_but_not_shown(self) -> None:
        address = websocket_address("wss://node/secret/ws?token=secret")
        self.assertEqual(address.resource, "/secret/ws?token=secret")
        self.assertEqual(str(address), "wss://node:443")


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def _endpoint(self, url: str, ca_file: str | None = None) -> object:
        return websocket_endpoint(self.reactor, websocket_address(url), ConnectionSettings(ca_file=ca_file))

    def _file(self, text: str) -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
            file.write(text)
        self.addCleanup(os.unlink, file.name)
        return file.name

    def test_plain(self) -> None:
        self._endpoint("ws://127.0.0.1:8080").connect(None)  # type: ignore[attr-defined]
        host, port, _factory, timeout, _bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout), ("127.0.0.1", 8080, 10))

    def test_ca_file_that_is_not_there(self) -> None:
        with self.assertRaisesRegex(ConfigError, "cannot be read: No such file"):
            self._endpoint("wss://node", "/does/not/exist.pem")

    def test_ca_file_without_a_certificate(self) -> None:
        with self.assertRaisesRegex(ConfigError, "holds no certificate"):
            self._endpoint("wss://node", self._file("no certificate\n"))

    def test_ca_file_with_a_broken_certificate(self) -> None:
        path = self._file("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
        with self.assertRaisesRegex(ConfigError, "a certificate that cannot be read"):
            self._endpoint("wss://node", path)

    def test_host_that_tls_cannot_check(self) -> None:
        with self.assertRaisesRegex(ConfigError, "cannot be checked over TLS"):
            self._endpoint("wss://ab--c")
