"""A node of the chain whose stage has as many batches as one likes: the other side of ``bench.large_stage``.

It answers every call with the batches of a stage, generated while they are sent, so that a gigabyte needs no memory.
All nonces are distinct, all distances usable. The HTTP is that of the network's nodes: chunked, one call a connection.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator

from dapi.chain.keyring import SigningKey
from dapi.messages import validation_pb2

NONCES = 1000
# Nonces from here on have five bytes each in protobuf, so that all batches have the same size.
_FIRST_NONCE = 2**28
_CHUNK_BYTES = 2**18


def keys(participants: int) -> list[SigningKey]:
    """Return the keys of the participants."""
    return [SigningKey(number.to_bytes(32, "big")) for number in range(1, participants + 1)]


def stage_value(participants: int, batches: int) -> Iterator[bytes]:
    """Yield the answer to PocBatchesForStage in pieces: so many batches of NONCES nonces for each participant."""
    dist = struct.pack(f"<{NONCES}d", *(1.4 * (place + 0.5) / NONCES for place in range(NONCES)))
    for number, key in enumerate(keys(participants)):
        names = _field(1, key.address.encode()) + _field(2, base64.b64encode(key.public_key))
        names += _field(3, key.public_key.hex().encode())
        more = _field(1, key.address.encode()) + b"\x10\x90\x87\x01\x18\xa0\x87\x01"
        batch_size = len(_field(4, _batch(0, more, dist)))
        yield _head(1, len(names) + batches * batch_size) + names
        for batch in range(batches):
            yield _field(4, _batch(number * batches + batch, more, dist))


def answer(call_id: int, height: str, participants: int, batches: int) -> Iterator[bytes]:
    """Yield the JSON of the answer in chunks; the value is that of ``stage_value``."""
    yield b'{"jsonrpc":"2.0","id":%d,"result":{"response":{"code":0,"log":"","info":"","index":"0",' % call_id
    yield b'"key":null,"value":"'
    text = bytearray()
    rest = b""
    for piece in stage_value(participants, batches):
        rest += piece
        whole = len(rest) // 3 * 3
        text += base64.b64encode(rest[:whole])
        rest = rest[whole:]
        if len(text) > _CHUNK_BYTES:
            yield bytes(text)
            text.clear()
    yield bytes(text) + base64.b64encode(rest) + b'"'
    yield b',"proofOps":null,"height":"%s","codespace":""}}}' % height.encode()


def batches_for(json_bytes: int, participants: int) -> int:
    """Return how many batches each participant has in an answer of about so many bytes of JSON."""
    one = sum(map(len, stage_value(1, 2))) - sum(map(len, stage_value(1, 1)))
    return max(1, round(json_bytes * 3 / 4 / one / participants))


def _batch(number: int, more: bytes, dist: bytes) -> bytes:
    # As far apart as those of many nodes are, and in no order.
    first = _FIRST_NONCE + number * 7919 % 1_000_003 * NONCES
    nonces = validation_pb2.PocBatch(nonces=range(first, first + NONCES), dist=dist).SerializeToString()
    return more + nonces + _field(6, f"{number:064x}".encode()) + _field(7, b"node1")


def _field(number: int, value: bytes) -> bytes:
    return _head(number, len(value)) + value


def _head(number: int, size: int) -> bytes:
    head = bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head)


class StageServer:
    """Answers each call on its connection; ``sent_bytes`` is the size of the last answer's JSON."""

    def __init__(self, participants: int, batches: int) -> None:
        self._participants = participants
        self._batches = batches
        self.sent_bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request, answer, and close (an asyncio.start_server callback)."""
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        call = json.loads(await reader.readexactly(int(headers[b"content-length"])))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.sent_bytes = 0
        try:
            for chunk in answer(call["id"], call["params"]["height"], self._participants, self._batches):
                self.sent_bytes += len(chunk)
                writer.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            # Whoever has read enough goes away.
            pass
        finally:
            writer.close()
