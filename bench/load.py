"""The batches that the intake benchmarks send."""

from __future__ import annotations

import json
import random

_NODE_NUM, _NODE_COUNT = 1, 4
# A node's nonces are its number and multiples of the count of nodes. The batch's number makes one of them; like the
# others, it has four bytes in protobuf, as those of one batch are of like size.
_FIRST, _PLACE = 2**22 + _NODE_NUM, 10**7 + _NODE_NUM
# An ack as most write it.
_ACK_BEGINS, _ACK_ENDS = b'{"type":"ack","id":"', b'"}'


class Load:
    """Distinct batches of one size: alike but for one nonce, which is the batch's number, and so is the message's id.

    The numbers are as long as a node's: nonces of seven digits and more, distances of about 18 characters. The nonces
    are those of node NODE_NUM of NODE_COUNT.
    """

    NODE_NUM, NODE_COUNT = _NODE_NUM, _NODE_COUNT

    def __init__(self, nonces: int) -> None:
        source = random.Random(nonces)
        batch = {
            "public_key": "02" + "ab" * 32,
            "block_hash": "CD" * 32,
            "block_height": 1000,
            "nonces": [*(_FIRST + _NODE_COUNT * place for place in range(nonces - 1)), _PLACE],
            "dist": [1.4 * source.random() for _ in range(nonces)],
            "node_id": _NODE_NUM,
        }
        place = str(_PLACE).encode()
        message = json.dumps({"type": "generated", "batch": batch, "id": "#"}, separators=(",", ":")).encode()
        # The nonces come first; the digits of a distance may be the same.
        before, rest = message.split(place, 1)
        between, after = rest.split(b"#")
        self.envelope = before, between, after
        """What stands before the nonce, between it and the id, and after that, in a message of the WebSocket."""
        before, after = json.dumps(batch).encode().split(place, 1)
        self.bare = before, after
        """What stands before and after the nonce in the body of a callback."""

    @staticmethod
    def digits(number: int) -> bytes:
        """Return the nonce of the batch with this number."""
        return b"%d" % (_PLACE + _NODE_COUNT * number)

    @staticmethod
    def number(ack: bytes) -> int:
        """Return the number of the batch that an ack is for."""
        if ack.startswith(_ACK_BEGINS) and ack.endswith(_ACK_ENDS):
            nonce = int(ack[len(_ACK_BEGINS) : -len(_ACK_ENDS)])
        else:
            nonce = int(json.loads(ack)["id"])
        return (nonce - _PLACE) // _NODE_COUNT

    def message(self, number: int) -> bytes:
        """Return the message of the WebSocket with this number."""
        before, between, after = self.envelope
        digits = self.digits(number)
        return b"".join((before, digits, between, digits, after))

    def batch(self, number: int) -> bytes:
        """Return the batch alone of the message with this number, as a callback brings it."""
        before, after = self.bare
        return b"".join((before, self.digits(number), after))
