"""The field that msgspec complains of, and why."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.field_errors import field_and_reason


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    numbers: list[int]


class Outer(msgspec.Struct):
    inner: Inner


CASES = {
    "{}": ("$.inner", "is missing"),
    '{"inner": {}}': ("$.inner.numbers", "is missing"),
    '{"inner": {"numbers": [], "x": 1}}': ("$.inner.x", "is not a known field"),
    '{"inner": {"numbers": [1, "2"]}}': ("$.inner.numbers[1]", "Expected `int`, got `str`"),
    "[]": ("$", "Expected `object`, got `array`"),
}


class FieldErrorTests(SynchronousTestCase):
    def test_path_and_reason(self) -> None:
        for text, expected in CASES.items():
            error = self.assertRaises(msgspec.ValidationError, msgspec.json.decode, text, type=Outer)
            self.assertEqual(field_and_reason(error), expected)

    def test_the_caller_says_what_an_unknown_field_is(self) -> None:
        error = self.assertRaises(msgspec.ValidationError, msgspec.convert, {"numbers": [], "x": 1}, Inner)
        self.assertEqual(field_and_reason(error, unknown="means nothing"), ("$.x", "means nothing"))
