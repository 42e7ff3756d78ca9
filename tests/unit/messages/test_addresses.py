"""Addresses, against the network's own vector."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError
from dapi.messages.addresses import address_of

PUBLIC_KEY = "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
ADDRESS = "gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p"


class AddressTests(SynchronousTestCase):
    def test_vector(self) -> None:
        self.assertEqual(address_of(PUBLIC_KEY), ADDRESS)

    def test_case_of_the_digits_does_not_matter(self) -> None:
        self.assertEqual(address_of(PUBLIC_KEY.upper()), ADDRESS)

    def test_the_other_half_of_the_curve_is_another_address(self) -> None:
        self.assertNotEqual(address_of("02" + PUBLIC_KEY[2:]), ADDRESS)

    def test_what_is_no_key(self) -> None:
        for text in (
            "",
            "03",
            PUBLIC_KEY[:-2],
            PUBLIC_KEY + "00",
            "04" + PUBLIC_KEY[2:],
            "0x" + PUBLIC_KEY,
            f" {PUBLIC_KEY}",
            f"{PUBLIC_KEY}\n",
            PUBLIC_KEY[:-1] + "g",
            PUBLIC_KEY[:2] + " " + PUBLIC_KEY[3:],
            PUBLIC_KEY[:-1] + "\u0661",
            "A4" * 33,
        ):
            error = self.assertRaises(MessageError, address_of, text)
            self.assertEqual(error.field, "public_key", text)
            reason = "is not a compressed secp256k1 key: 66 hex digits, of which the first are 02 or 03"
            self.assertEqual(error.reason, reason)
