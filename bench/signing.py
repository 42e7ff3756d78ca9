"""How long signing and encoding keep the reactor's thread: ``python -m bench.signing``.

For a batch of 20,000 nonces, and for the fullest transaction that the submitter makes of such batches, each step runs
as the reactor would run it: in one go, on one thread. Cutting a batch and signing are done by the database's thread,
except where a transaction is signed anew, but hold the interpreter lock as long. The longest stretch is what other
connections wait for; the limit is 20 ms, and a 99th percentile above it makes the exit code 1. In the same run, in
turns with our steps, others do the same work: JSON instead of protobuf, OpenSSL instead of libsecp256k1.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench.results import Section
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc_answers import TxAnswer, decode_answer, encode_request, tx_hash_of
from dapi.chain.transactions import BATCH_TYPE_URL, TransactionSigner
from dapi.messages import ProofBatch
from dapi.messages.columns import doubles, integers
from dapi.outbox.cosmos_message_client import encoded_batch
from dapi.submission.parts import parts_of
from dapi.submission.settings import SubmitterSettings

NONCES = 20_000
LIMIT_MS = 20.0
TIMEOUT_NS = 1_764_000_000_123_456_789


class Steps:
    """The steps from a decoded batch to the body of a broadcast, and what they are compared with."""

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)
        self.fields: dict[str, Any] = {
            "poc_stage_start_block_height": 17280,
            "batch_id": "ab" * 32,
            "nonces": [*range(10**7, 10**7 + 8 * NONCES, 8)],
            "dist": [source.random() for _ in range(NONCES)],
            "node_id": "node1",
        }
        # As it was decoded: its numbers are columns.
        nonces, dist = integers(self.fields["nonces"]), doubles(self.fields["dist"])
        self.batch = ProofBatch("02" + "ab" * 32, "CD" * 32, 17280, nonces, dist, 0)
        secret = source.randbytes(32)
        key = SigningKey(secret)
        warm = SigningKey(source.randbytes(32))
        self.own_signer = TransactionSigner(key, "gonka-mainnet", 42, key.address)
        self.warm_signer = TransactionSigner(warm, "gonka-mainnet", 43, key.address)
        self.message = self.encode()
        self.raw = self.sign()
        self.parts = self.cut()
        room = SubmitterSettings().max_transaction_bytes - self.warm_signer.size_of([])
        part_bytes = max(len(part) for part in self.parts) + 256
        self.full = [(BATCH_TYPE_URL, self.parts[0])] * (room // part_bytes)
        self.full_raw = self.sign_full()
        self.answer = self._answer()
        self.key = key
        self.openssl = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())

    def encode(self) -> bytes:
        """Encode the batch as the chain's message."""
        return encoded_batch(self.batch, self.fields["batch_id"], self.fields["node_id"])

    def sign(self) -> bytes:
        """Build and sign the transaction with the participant's own key."""
        return self.own_signer.sign([(BATCH_TYPE_URL, self.message)], TIMEOUT_NS).raw

    def sign_warm(self) -> bytes:
        """Build and sign the transaction with a warm key."""
        return self.warm_signer.sign([(BATCH_TYPE_URL, self.message)], TIMEOUT_NS).raw

    def cut(self) -> list[bytes]:
        """Cut the batch into parts of what the chain takes in one message."""
        return [part.message for part in parts_of(self.message, SubmitterSettings().max_nonces)]

    def sign_full(self) -> bytes:
        """Build and sign the largest transaction that is made, with a warm key."""
        return self.warm_signer.sign(self.full, TIMEOUT_NS).raw

    def request(self) -> bytes:
        """Put the transaction into the body of a broadcast."""
        return encode_request(1, "broadcast_tx_sync", {"tx": self.raw})

    def request_full(self) -> bytes:
        """Put the largest transaction into the body of a broadcast, under its hash."""
        tx_hash_of(self.full_raw)
        return encode_request(1, "broadcast_tx_sync", {"tx": self.full_raw})

    def decode_answer(self) -> object:
        """Read what a look-up answers, which has the whole transaction in it."""
        return decode_answer(self.answer, 1, TxAnswer)

    def _answer(self) -> bytes:
        result = {
            "hash": tx_hash_of(self.full_raw),
            "height": "12",
            "index": 0,
            "tx_result": {"code": 0, "data": None, "log": "", "gas_wanted": "1", "events": [], "codespace": ""},
            "tx": self.full_raw,
        }
        return msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": result})

    def all_in_one(self) -> None:
        """Do all of it without a pause, with a warm key."""
        self.encode()
        self.sign_warm()
        self.request()

    def encode_msgspec(self) -> bytes:
        """Encode the batch as JSON with msgspec."""
        return msgspec.json.encode(self.fields)

    def encode_json(self) -> bytes:
        """Encode the batch as JSON with the standard library."""
        return json.dumps(self.fields).encode("ascii")

    def signature(self) -> bytes:
        """Sign the transaction's bytes, and nothing else."""
        return self.key.sign(self.raw)

    def signature_openssl(self) -> bytes:
        """Sign the same bytes with OpenSSL."""
        return self.openssl.sign(self.raw, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each function, run in turns, sorted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: sorted(values) for name, values in times.items()}


def main(rounds: int) -> int:
    """Print a line for each step and each comparison; return 1 when a step is too long."""
    steps = Steps(1)
    ours: dict[str, Callable[[], object]] = {
        "encode": steps.encode,
        "sign": steps.sign,
        "sign, warm key": steps.sign_warm,
        "request": steps.request,
        "cut": steps.cut,
        "sign, full": steps.sign_full,
        "request, full": steps.request_full,
        "answer, full": steps.decode_answer,
        "all in one": steps.all_in_one,
        "signature only": steps.signature,
    }
    others: dict[str, tuple[str, Callable[[], object]]] = {
        "JSON by msgspec": ("encode", steps.encode_msgspec),
        "JSON by json": ("encode", steps.encode_json),
        "signature by OpenSSL": ("signature only", steps.signature_openssl),
    }
    section = Section("signing")
    times = measure(ours | {name: function for name, (_, function) in others.items()}, rounds)
    sizes = f"transaction of {len(steps.raw)} bytes, the full one of {len(steps.full_raw)}"
    print(f"{NONCES} nonces, {sizes}, {rounds} rounds; ms on the reactor's thread")
    print(f"{'step':>22} {'median':>8} {'p99':>8} {'longest':>8}")
    for name, values in times.items():
        line = f"{name:>22} {statistics.median(values):>8.3f} {percentile(values):>8.3f} {values[-1]:>8.3f}"
        if name in others:
            compared = others[name][0]
            line += f"  {statistics.median(values) / statistics.median(times[compared]):.2f}x of {compared}"
        print(line)
    json_size = len(steps.encode_msgspec())
    print(f"size: {len(steps.message)} bytes, as JSON {json_size}: {json_size / len(steps.message):.2f}x")
    section.write(
        {
            name: {"median_ms": statistics.median(values), "p99_ms": percentile(values), "longest_ms": values[-1]}
            for name, values in times.items()
        }
    )
    too_long = [name for name in ours if percentile(times[name]) >= LIMIT_MS]
    print(f"limit {LIMIT_MS:.0f} ms: {'kept' if not too_long else 'EXCEEDED by ' + ', '.join(too_long)}")
    return 1 if too_long else 0


def percentile(values: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    sys.exit(main(parser.parse_args().rounds))
