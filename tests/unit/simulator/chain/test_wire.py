"""What the simulated chain reads by hand: addresses, protobuf, transactions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.addresses import address_of_key, is_address
from dapi.simulator.chain.messages import SubmitPocBatch
from dapi.simulator.chain.transactions import TxBody, decode_transaction, is_signature
from dapi.simulator.chain.wire import WireError, bytes_field, decode, packed_int64_field, varint_field
from tests.chain_tools import (
    batch,
    granted,
)
from tests.unit.simulator.chain.chain_in_memory import ChainInMemory

# docs/protocol/chain.md, 'Test vector'.
GOLDEN_BODY = bytes.fromhex(
    "0a7e0a262f696e666572656e63652e696e666572656e63652e4d73675375626d6974506f63426174636812540a2c676f6e6b61313078637170"
    "7a726b793665666632673532716479653533786b6b396a786b76723334617a387010e8071a03622d31220307ac022a10000000000000e03f00"
    "0000000000f43f32056e6f64653120012a0808bce2cfaa061001"
)
GOLDEN_AUTH = bytes.fromhex(
    "0a4e0a460a1f2f636f736d6f732e63727970746f2e736563703235366b312e5075624b657912230a21031b84c5567b126440995d3ed5aaba05"
    "65d71e1834604819ff9c17f5e9d5dd078f12040a0208011206108094ebdc03"
)
GOLDEN_SIGNATURE = bytes.fromhex(
    "4fdeed33c95ea7499bcabe149a27b2b13c2b20c07e872617abd2bf988c79d80f58e403a0bdac3651f77e616ca4e05498c9c4471aa533fe3765"
    "46c419454623d6"
)
GOLDEN_HASH = "2B0C2B667080BC813C204C583F65C06EF3E02D666A3C6721B28149E3037E3D82"
GOLDEN_KEY = bytes.fromhex("031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f")
GOLDEN_ADDRESS = "gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p"


class AddressTests(SynchronousTestCase):
    """Bech32 and the two hashes."""

    def test_the_address_of_the_vector(self) -> None:
        self.assertEqual(address_of_key(GOLDEN_KEY), GOLDEN_ADDRESS)

    def test_what_is_an_address(self) -> None:
        self.assertTrue(is_address(GOLDEN_ADDRESS))
        other_letter = GOLDEN_ADDRESS[:-1] + "q"
        for wrong in (
            other_letter,
            GOLDEN_ADDRESS[:-1],
            "cosmos" + GOLDEN_ADDRESS[5:],
            GOLDEN_ADDRESS.upper(),
            "",
            "1",
        ):
            self.assertFalse(is_address(wrong), wrong)


class WireTests(SynchronousTestCase):
    """Only the canonical encoding is read."""

    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 2**63 - 1))
    def test_what_is_written_is_read(self, nonces: list[int], height: int) -> None:
        _, encoded = batch("c", nonces=nonces, dist=[0.0] * len(nonces), height=height)
        read = decode(SubmitPocBatch, encoded)
        self.assertEqual(read.nonces, tuple(nonces))
        self.assertEqual(read.poc_stage_start_block_height, height)

    def test_what_is_refused(self) -> None:
        cases = {
            "descending": bytes_field(3, "b") + bytes_field(1, "c"),
            "twice": bytes_field(1, "c") * 2,
            "a default": b"\x10\x00",
            "an empty string": b"\x0a\x00",
            "unknown": varint_field(9, 1),
            "a long varint": b"\x10\x81\x00",
            "a varint of 65 bits": b"\x10" + b"\xff" * 9 + b"\x02",
            "cut short": b"\x0a\x05ab",
            "a cut varint": b"\x10\x81",
            "another wire type": b"\x0d\x00\x00\x00\x00",
            "no whole doubles": bytes_field(5, b"1234567"),
            "no UTF-8": bytes_field(1, b"\xff"),
            "field 0": b"\x02\x00",
        }
        for name, encoded in cases.items():
            with self.assertRaises(WireError, msg=name):
                decode(SubmitPocBatch, encoded)

    def test_a_bool_is_1_or_left_out(self) -> None:
        self.assertIs(decode(TxBody, varint_field(4, 1)).unordered, True)
        self.assertRaises(WireError, decode, TxBody, varint_field(4, 2))

    def test_unpacked_lists_are_refused(self) -> None:
        with self.assertRaises(WireError):
            decode(SubmitPocBatch, varint_field(4, 7))
        self.assertEqual(decode(SubmitPocBatch, packed_int64_field(4, [7])).nonces, (7,))


class TransactionTests(SynchronousTestCase):
    """Decoding and signatures."""

    def test_the_vector(self) -> None:
        raw = bytes_field(1, GOLDEN_BODY) + bytes_field(2, GOLDEN_AUTH) + bytes_field(3, GOLDEN_SIGNATURE)
        tx = decode_transaction(raw)
        self.assertEqual(tx.hash, GOLDEN_HASH)
        self.assertEqual(tx.timeout_ns, 1_700_000_060_000_000_001)
        [message] = tx.host_messages()
        self.assertEqual(message, SubmitPocBatch(GOLDEN_ADDRESS, 1000, "b-1", (7, 300), (0.5, 1.25), "node1"))
        self.assertTrue(is_signature(GOLDEN_KEY, tx.sign_doc("gonka-mainnet", 42), GOLDEN_SIGNATURE))
        self.assertFalse(is_signature(GOLDEN_KEY, tx.sign_doc("gonka-mainnet", 43), GOLDEN_SIGNATURE))

    def test_bytes_that_are_no_transaction(self) -> None:
        network = ChainInMemory()
        nested_unknown = granted(network.key.address, ("/inference.inference.MsgOther", b""))
        for raw in (b"\xff", network.tx(("/cosmos.bank.v1beta1.MsgSend", b"")), network.tx(nested_unknown)):
            self.assertEqual(network.check(raw), ("sdk", 2))
        self.assertEqual(network.check(b""), ("sdk", 18), "no message")

    def test_signatures_that_are_no_signatures(self) -> None:
        for signature in (b"", bytes(64), b"\xff" * 64, GOLDEN_SIGNATURE[:63]):
            self.assertFalse(is_signature(GOLDEN_KEY, b"signed", signature))
        self.assertFalse(is_signature(b"\x02" + b"\xff" * 32, b"signed", GOLDEN_SIGNATURE))
