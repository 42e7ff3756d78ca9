"""The admin token's setting."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.config import ApiConfig, Secret
from dapi.errors import ConfigError
from dapi.service.admin_token import admin_token

TOKEN = "0123456789abcdef"


class AdminTokenTests(SynchronousTestCase):
    def refused(self, expected: str, **settings: object) -> None:
        with self.assertRaises(ConfigError) as raised:
            admin_token(ApiConfig(**settings))  # type: ignore[arg-type]
        self.assertIn(expected, str(raised.exception))
        self.assertNotIn("short", str(raised.exception))

    def test_none_is_needed_on_loopback(self) -> None:
        for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
            self.assertIsNone(admin_token(ApiConfig(admin_server_host=host)))
            self.assertEqual(admin_token(ApiConfig(admin_server_host=host, admin_token=Secret(TOKEN))), TOKEN)

    def test_elsewhere_it_is_needed(self) -> None:
        for host in ("0.0.0.0", "::", "10.0.0.5", "dapi.example"):
            self.refused("set api.admin_token or api.admin_token_file", admin_server_host=host)
            self.assertEqual(admin_token(ApiConfig(admin_server_host=host, admin_token=Secret(f" {TOKEN}\n"))), TOKEN)

    def test_from_a_file(self) -> None:
        path = Path(self.mktemp())
        path.write_text(f"{TOKEN}\n")
        self.assertEqual(admin_token(ApiConfig(admin_server_host="0.0.0.0", admin_token_file=str(path))), TOKEN)
        self.refused("leave one of them out", admin_token=Secret(TOKEN), admin_token_file=str(path))
        self.refused("cannot be read: No such file", admin_token_file="missing")
        path.write_bytes(b"\xff")
        self.refused("is not UTF-8", admin_token_file=str(path))

    def test_one_that_could_be_guessed_or_not_be_sent(self) -> None:
        for wrong in ("short", "with a blank in it", "0123456789abcdeé", "0123456789\nabcdef"):
            self.refused("16 ASCII characters or more", admin_token=Secret(wrong))
