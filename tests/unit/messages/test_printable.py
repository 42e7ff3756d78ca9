"""Text from outside is cut, escaped and freed of tokens before it is shown; a secret is not shown at all."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.printable import printable, without_tokens
from dapi.messages.secret import Secret

TOKEN = "cb-1-2-Ab_9-z"


class PrintableTests(SynchronousTestCase):
    def test_what_could_break_a_line(self) -> None:
        cases: dict[str | bytes, str] = {
            "plain text": "plain text",
            "ä €": "ä €",
            "a\r\nb\tc": "a??b?c",
            "\x1b[31mred\x00": "?[31mred?",
            "\u202eturned": "?turned",
            "  around  ": "around",
            b"\xff\xfe bytes": "�� bytes",
            "ä".encode(): "ä",
        }
        self.assertEqual({text: printable(text) for text in cases}, cases)

    def test_it_is_cut(self) -> None:
        self.assertEqual(printable("x" * 200), "x" * 200)
        self.assertEqual(printable("x" * 201), "x" * 200)
        self.assertEqual(printable(b"x" * 10**6), "x" * 200)

    def test_tokens_are_hidden_before_it_is_cut(self) -> None:
        self.assertEqual(printable(f"/v1/{TOKEN}/generated"), "/v1/(hidden)/generated")
        self.assertEqual(printable(f"/k/Se-cret_1/v2 and {TOKEN}"), "/k/(hidden)/v2 and (hidden)")
        shown = printable("x" * 195 + TOKEN)
        self.assertEqual(shown, "x" * 195 + "(hidd")

    def test_a_text_of_any_length_without_its_tokens(self) -> None:
        text = f"{TOKEN} " * 500
        self.assertEqual(without_tokens(text), "(hidden) " * 500)
        self.assertEqual(without_tokens("cb-1 and /k/"), "cb-1 and /k/")


class SecretTests(SynchronousTestCase):
    def test_it_is_shown_nowhere_and_revealed_on_request(self) -> None:
        secret = Secret("hunter2")
        self.assertEqual(f"{secret!r} {secret} {[secret]}", "<secret> <secret> [<secret>]")
        self.assertEqual(secret.reveal(), "hunter2")

    def test_equal_secrets(self) -> None:
        self.assertEqual(Secret("a"), Secret("a"))
        self.assertNotEqual(Secret("a"), Secret("b"))
        self.assertNotEqual(Secret("a"), "a")
        self.assertEqual(len({Secret("a"), Secret("a"), Secret("b")}), 2)
