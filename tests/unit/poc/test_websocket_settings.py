"""The promised behaviour is the default, and nonsense is refused."""

from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ConfigError
from dapi.poc.websocket_settings import WebSocketSettings


class SettingsTests(SynchronousTestCase):
    def test_defaults_are_the_promise(self) -> None:
        settings = WebSocketSettings()
        self.assertEqual((settings.retry_min_seconds, settings.retry_max_seconds), (3, 5))
        self.assertEqual((settings.ping_interval_seconds, settings.ping_timeout_seconds), (20, 15))
        self.assertEqual((settings.connect_timeout_seconds, settings.handshake_timeout_seconds), (10, 10))
        self.assertEqual(settings.idle_seconds, 60)
        self.assertEqual((settings.bypass_grace_seconds, settings.bypass_interval_seconds), (5, 15))
        self.assertEqual((settings.close_timeout_seconds, settings.settle_seconds), (1, 1))
        self.assertEqual(settings.max_message_bytes, 16 * 1024 * 1024)
        self.assertEqual((settings.max_pending_messages, settings.max_pending_bytes), (256, 64 * 1024 * 1024))
        self.assertFalse(settings.compression)
        self.assertIsNone(settings.ca_file)

    def test_nonsense_is_refused_by_name(self) -> None:
        for name, value in (
            ("retry_min_seconds", 0),
            ("idle_seconds", -1),
            ("ping_timeout_seconds", float("nan")),
            ("max_message_bytes", 0),
            ("max_pending_messages", 0),
            ("settle_seconds", -1),
        ):
            with self.assertRaisesRegex(ConfigError, name):
                WebSocketSettings(**{name: value})  # type: ignore[arg-type]
        with self.assertRaisesRegex(ConfigError, "retry_max_seconds"):
            WebSocketSettings(retry_min_seconds=6)

    def test_settling_can_be_left_out(self) -> None:
        self.assertEqual(WebSocketSettings(settle_seconds=0).settle_seconds, 0)
