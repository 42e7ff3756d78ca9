"""Numbers as columns, little-endian on every machine."""

from __future__ import annotations

import sys
from array import array
from typing import Literal

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.columns import doubles, integers, little_endian


class ColumnsTests(SynchronousTestCase):
    def test_lists_become_columns_and_columns_stay(self) -> None:
        nonces, dist = integers([1, -2]), doubles([0.5, 2])
        self.assertEqual((nonces.typecode, list(nonces), nonces.itemsize), ("q", [1, -2], 8))
        self.assertEqual((dist.typecode, list(dist), dist.itemsize), ("d", [0.5, 2.0], 8))
        self.assertIs(integers(nonces), nonces)
        self.assertIs(doubles(dist), dist)

    def test_bytes_are_little_endian(self) -> None:
        self.assertEqual(
            bytes(little_endian(integers([1, 256]))), (1).to_bytes(8, "little") + (256).to_bytes(8, "little")
        )

    def test_machine_of_the_other_byte_order(self) -> None:
        column = array("q", [1, 256])
        other: Literal["big", "little"] = "big" if sys.byteorder == "little" else "little"
        swapped = little_endian(column, "big")
        self.assertEqual(bytes(swapped), b"".join(number.to_bytes(8, other) for number in column))
        self.assertEqual(list(column), [1, 256])
