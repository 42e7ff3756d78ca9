"""A body of any size is on disk byte for byte, is named by its hash, and says the same."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.sizes import MIB
from dapi.relay.bodies import IncomingBody
from dapi.relay.scan import Facts
from dapi.simulator.vllm.sender import generated_body

TARGET = b"/v2/poc-batches/m/generated"


class PromptLane:
    """Does at once what a thread would do."""

    def submit(self, function: Callable[[], Any]) -> Deferred[Any]:
        return execute(function)


class BodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def body(self, content: bytes, piece_bytes: int = 100_000) -> IncomingBody:
        """Return a body that has come in pieces."""
        lane: Any = PromptLane()
        path = self.folder / f"{len(list(self.folder.iterdir()))}.body"
        body = IncomingBody(lane, path, TARGET, len(content), pause=lambda: None, resume=lambda: None)
        for begin in range(0, len(content), piece_bytes):
            body.write(content[begin : begin + piece_bytes])
        return body

    def test_any_size(self) -> None:
        for count in (0, 1, 5_000, 8_000, 20_000):
            content = generated_body(1_728_000, 1, list(range(1, 1 + 3 * count, 3)))
            body = self.body(content)
            facts = self.successResultOf(body.finish())
            self.assertEqual((facts.height, facts.node_num, len(facts.nonces)), (1_728_000, 1, count))
            self.assertEqual(body.path.read_bytes(), content)
            self.assertEqual(body.digest, hashlib.sha256(TARGET + b"\0" + content).digest())
            self.assertEqual(self.successResultOf(body.read(0, len(content) + 1))[:100], content[:100])
            self.assertEqual(body.leave_memory(), content if len(content) <= MIB else None)
            self.assertEqual(self.successResultOf(body.read(7, 50)), content[7:57])

    def test_what_cannot_be_read_is_kept_all_the_same(self) -> None:
        for content in (b"", b"null", b"\x00" * 500_000, b"[" * 2 * MIB):
            body = self.body(content)
            self.assertEqual(self.successResultOf(body.finish()), Facts())
            self.assertEqual(body.path.read_bytes(), content)

    def test_a_file_that_cannot_be_made_leaves_the_body_in_memory(self) -> None:
        for size in (300_000, 700_000):
            body = self.body(b"x" * size)
            body.path.mkdir()
            failure = self.failureResultOf(body.finish(), OSError)
            self.assertEqual(failure.value.errno, errno.EEXIST)
            self.assertEqual(len(self.successResultOf(body.read(0, size + 1))), size)

    def test_it_is_synced_before_it_is_finished(self) -> None:
        for size in (300_000, 700_000, 2 * MIB):
            synced: list[int] = []

            def note(file: int, synced: list[int] = synced) -> None:
                synced.append(os.fstat(file).st_size)

            self.patch(os, "fdatasync", note)
            self.successResultOf(self.body(b"x" * size).finish())
            self.assertEqual(synced[-1], size)
