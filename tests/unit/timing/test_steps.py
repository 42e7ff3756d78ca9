"""A step that a table has is made, and any other is refused."""

from __future__ import annotations

import enum

from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.steps import step


class Light(enum.Enum):
    RED = enum.auto()
    GREEN = enum.auto()
    DARK = enum.auto()


TABLE = {Light.RED: {Light.GREEN, Light.DARK}, Light.GREEN: {Light.RED}, Light.DARK: set[Light]()}


class StepTests(SynchronousTestCase):
    def test_each_step(self) -> None:
        for before in Light:
            for after in Light:
                if after in TABLE[before]:
                    self.assertIs(step(TABLE, before, after), after)
                else:
                    self.assertRaises(RuntimeError, step, TABLE, before, after)

    def test_the_error_names_whose_step_it_was(self) -> None:
        error = self.assertRaises(RuntimeError, step, TABLE, Light.GREEN, Light.DARK, "north")
        self.assertEqual(str(error), "north: GREEN does not lead to DARK")
