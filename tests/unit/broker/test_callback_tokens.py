"""The tokens of the nodes, and the secret that makes them."""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.broker import callback_tokens
from dapi.broker.callback_tokens import CallbackTokens
from dapi.errors import StartError
from dapi.messages.printable import printable
from tests.logs import log_of


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.log = log_of(self)
        self.secret = self.folder / "outbox.db.secret"

    def start(self) -> CallbackTokens:
        tokens = CallbackTokens(str(self.folder / "outbox.db"))
        tokens.startService()
        return tokens

    def test_stays_over_restarts_and_is_the_owners(self) -> None:
        token = self.start().token(1, 2)
        self.assertEqual(stat.S_IMODE(self.secret.stat().st_mode), 0o600)
        self.assertEqual(self.start().token(1, 2), token)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["outbox.db.secret"])
        self.secret.unlink()
        self.assertNotEqual(self.start().token(1, 2), token)

    def test_what_a_token_proves(self) -> None:
        tokens = self.start()
        self.assertEqual(tokens.proven(tokens.token(1, 2)), (1, 2))
        seen = {tokens.token(num, token_num) for num in range(12) for token_num in range(1, 12)}
        self.assertEqual(len(seen), 12 * 11)

    def test_a_wrong_token_proves_nothing(self) -> None:
        tokens = self.start()
        right = tokens.token(1, 2)
        _, _, _, proof = right.split("-", 3)
        changed = [f"{right[:at]}{'A' if right[at] != 'A' else 'B'}{right[at + 1 :]}" for at in range(len(right))]
        others = (f"cb-2-2-{proof}", f"cb-1-1-{proof}", f"cb-01-2-{proof}", f"cb-1-0-{proof}", f"cb-\u0661-2-{proof}")
        for wrong in (*changed, *others, "", right[:-1], f"{right}A", f"{right}\n", f" {right}", "é" * 50):
            self.assertIsNone(tokens.proven(wrong), wrong)

    def test_only_right_tokens_are_remembered_and_only_so_many(self) -> None:
        tokens = self.start()
        self.patch(callback_tokens, "_MAX_REMEMBERED", 3)
        for node_num in range(10):
            right = tokens.token(node_num, 1)
            for _ in range(2):
                self.assertEqual(tokens.proven(right), (node_num, 1))
                self.assertIsNone(tokens.proven(f"{right[:-3]}AAA"))
            self.assertLessEqual(len(tokens._proven), 3)
            self.assertNotIn(f"{right[:-3]}AAA", tokens._proven)

    def test_a_new_secret_makes_what_was_remembered_wrong(self) -> None:
        tokens = self.start()
        right = tokens.token(1, 1)
        self.assertEqual(tokens.proven(right), (1, 1))
        self.secret.unlink()
        tokens.startService()
        self.assertIsNone(tokens.proven(right))

    def test_a_start_that_was_cut_short_leaves_no_half_of_a_secret(self) -> None:
        (self.folder / "outbox.db.secret.new").write_bytes(b"half")
        token = self.start().token(1, 1)
        self.assertEqual(self.start().token(1, 1), token)

    def test_a_file_that_others_can_read_is_closed_to_them_and_told(self) -> None:
        token = self.start().token(1, 1)
        self.secret.chmod(0o644)
        self.assertEqual(self.start().token(1, 1), token)
        self.assertEqual(stat.S_IMODE(self.secret.stat().st_mode), 0o600)
        (warning,) = self.log.warnings("was open to others")
        self.assertIn("(mode 644)", warning)

    def test_a_damaged_or_unreadable_file_stops_the_start(self) -> None:
        self.secret.write_bytes(b"short")
        self.secret.chmod(0o600)
        with self.assertRaisesRegex(StartError, "has 5 bytes and not 32"):
            self.start()
        self.secret.unlink()
        self.secret.mkdir(mode=0o700)
        with self.assertRaisesRegex(StartError, "cannot be read or made: Is a directory"):
            self.start()

    def test_is_hidden_in_what_is_shown(self) -> None:
        token = self.start().token(17, 3)
        for text in (
            f"/v1/poc-batches/{token}/generated",
            f'{{"url":"http://a/{token}"}}',
            token[:30],
            "x" * 190 + token,
        ):
            shown = printable(text)
            self.assertNotIn(token[8:20], shown)
            self.assertIn("(hidden)"[: 200 - text.index("cb-")], shown)
