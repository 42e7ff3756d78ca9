"""The simulated api container answers as docs/protocol/poc-v2.md, 'Answers' says."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.api.answers import Refused, route
from dapi.simulator.api.api import ApiState, SimulatedApi
from dapi.simulator.api.settings import ApiSettings, Line
from dapi.simulator.api.stages import Durations, Phase, Stage
from dapi.simulator.vllm.sender import callback_path, generated_body

MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
PATH = callback_path(MODEL, "generated").encode()
VALIDATED = callback_path(MODEL, "validated").encode()
P = 1_728_000


def verdict(**changes: Any) -> bytes:
    """A ``validated`` body."""
    body = {"request_id": "3f0c9a52", "block_height": P, "public_key": "03" + "5a" * 32, "n_total": 200}
    return json.dumps({**body, **changes}).encode()


class AnswerTestCase(SynchronousTestCase):
    line = Line.C

    def setUp(self) -> None:
        self.api = SimulatedApi(Clock(), ApiSettings(line=self.line), nodes={1: MODEL, 2: MODEL})
        self.api.state, self.api.stage, self.api.height = ApiState.RUNNING, Stage(P), P

    def post(self, body: bytes, path: bytes = PATH, content_type: str | None = "application/json") -> tuple[int, Any]:
        """What a POST is answered with: the status, and the error."""
        try:
            self.api.take_callback(path, content_type, body)
        except Refused as refused:
            return refused.status, json.loads(refused.body)["error"]
        return 200, None

    def count(self) -> int:
        """How many artifacts are on disk after a flush."""
        self.api.flush()
        return self.api.artifacts[P, MODEL].count


class PathTests(SynchronousTestCase):
    def test_the_model_is_escaped_twice(self) -> None:
        self.assertEqual(PATH, b"/v2/poc-batches/Qwen%252FQwen3-235B-A22B-Instruct-2507-FP8/generated")
        self.assertEqual(route(PATH), (MODEL, "generated"))
        self.assertEqual(route(PATH.replace(b"%25", b"%")), (MODEL, "generated"), "once is taken, too")
        odd = "a b:c@d+e&f=g$"
        self.assertEqual(callback_path(odd, "generated"), "/v2/poc-batches/a%2520b:c@d+e&f=g$/generated")
        self.assertEqual(route(callback_path(odd, "generated").encode()).model, odd)

    def test_everything_else_is_404(self) -> None:
        for path in (
            b"/" + PATH,
            PATH + b"/",
            PATH.replace(b"%252F", b"/"),
            b"/v2/poc-batches/generated",
            b"/v1/poc-batches/generated",
            b"/k/secret" + PATH,
        ):
            with self.assertRaises(Refused) as caught:
                route(path)
            self.assertEqual(caught.exception.status, 404)


class GeneratedTests(AnswerTestCase):
    def test_taken_once_whatever_comes_again(self) -> None:
        for nonces, count in (([1, 5, 9], 3), ([2, 6], 5), ([2, 6], 5), ([9, 13], 6), ([2**32 + 1], 6)):
            self.assertEqual(self.post(generated_body(P, 1, nonces)), (200, None))
            self.assertEqual(self.count(), count)

    def test_binding_comes_first(self) -> None:
        self.api.height = P - 1
        body = generated_body(P, 1, [1])
        for content_type in (None, "text/plain", "application/octet-stream"):
            self.assertEqual(self.post(body, content_type=content_type), (400, {"message": "Unsupported Media Type"}))
        for bad in (body.replace(b'"node_id": 1', b'"node_id": "1"'), body[:-1], b"[]", b"\x1f\x8b"):
            self.assertEqual(self.post(bad)[0], 400)
        self.assertEqual(self.post(body, content_type="application/json; charset=utf-8")[0], 503)

    def test_empty_bodies_bind_to_zeros(self) -> None:
        for body in (b"", b"null", b"{}"):
            self.assertEqual(self.post(body)[0], 400)
        self.api.height = P - 1
        self.assertEqual(self.post(b"{}"), (503, "not in PoC generate phase"))

    def test_the_window(self) -> None:
        stage = Stage(P)
        for height, status in ((P - 1, 503), (P, 200), (stage.end, 200), (stage.end + 1, 503)):
            self.api.height = height
            self.assertEqual(self.post(generated_body(P, 1, [1]))[0], status)
        self.api.height, self.api.state = P, ApiState.UNSYNCED
        self.assertEqual(self.post(generated_body(P, 1, [1])), (503, "not in PoC generate phase"))

    def test_stage_node_and_vectors(self) -> None:
        self.assertEqual(self.post(generated_body(P - 1, 1, [1])), (400, "block_height is not the active PoC stage"))
        self.assertEqual(self.post(generated_body(P, 9, [9])), (400, "unknown node_num"))
        for vector, error in ((b"", "empty artifact vector"), (b"***", "invalid base64 in artifact vector")):
            body = b'{"block_height": %d, "node_id": 1, "artifacts": [{"nonce": 1, "vector_b64": "%s"}]}' % (P, vector)
            self.assertEqual(self.post(body), (400, error))

    def test_a_store_that_fails(self) -> None:
        self.api.faults.store_fails = True
        self.assertEqual(self.post(generated_body(P, 1, [1])), (503, "failed to store artifacts"))

    def test_validated(self) -> None:
        stage = Stage(P)
        self.assertEqual(self.post(verdict(), VALIDATED), (503, "not in PoC validate phase"))
        for height, status in (
            (stage.validation_start - 1, 503),
            (stage.validation_start, 200),
            (stage.validation_end - 1, 200),
            (stage.validation_end, 503),
        ):
            self.api.height = height
            self.assertEqual(self.post(verdict(), VALIDATED)[0], status)
        self.api.height = stage.validation_start
        self.assertEqual(self.post(verdict(public_key="xyz"), VALIDATED)[0], 500)
        for body in (b"{}", b"", verdict(block_height=1), verdict(node_id=99)):
            self.assertEqual(self.post(body, VALIDATED)[0], 200)


class LineBTests(AnswerTestCase):
    line = Line.B

    def test_any_height_opens_a_store(self) -> None:
        self.assertEqual(self.post(generated_body(P - 400, 1, [1])), (200, None))
        self.assertIn((P - 400, MODEL), self.api.artifacts)

    def test_a_store_that_fails_answers_200_and_keeps_nothing(self) -> None:
        self.api.faults.store_fails = True
        self.assertEqual(self.post(generated_body(P, 1, [1])), (200, None))
        self.assertEqual(self.api.artifacts, {})


class LineDTests(AnswerTestCase):
    line = Line.D

    def test_steps_in_place_of_a_vector(self) -> None:
        artifact = b'{"nonce": 3, "vector_b64": "", "k_points_steps": [5, 0, 255, 17]}'
        body = b'{"block_height": %d, "node_id": 1, "artifacts": [%s]}' % (P, artifact)
        self.assertEqual(self.post(body), (200, None))
        self.api.settings = ApiSettings(line=Line.C)
        self.assertEqual(self.post(body), (400, "empty artifact vector"))


class StoreTests(AnswerTestCase):
    """docs/protocol/poc-v2.md, 'The store' and 'Commits'."""

    def test_200_is_memory_only_until_the_flush(self) -> None:
        self.post(generated_body(P, 1, [1, 3]))
        self.assertEqual(self.count(), 2)
        self.post(generated_body(P, 1, [5, 7, 9]))
        artifacts = self.api.artifacts[P, MODEL]
        self.assertEqual(artifacts.count, 2)
        self.assertEqual(artifacts.crash(), 3)
        self.assertEqual(self.count(), 2)

    def test_a_damaged_file_loses_what_was_committed(self) -> None:
        self.post(generated_body(P, 1, list(range(1, 20, 2))))
        self.api.flush()
        self.api.damage(MODEL, 3)
        self.assertEqual(self.count(), 3)
        self.assertEqual(self.api.committed(P, MODEL), 10, "the chain takes no count that falls")

    def test_a_full_disk_flushes_nothing(self) -> None:
        self.post(generated_body(P, 1, [1]))
        self.api.faults.flush_fails = True
        self.assertEqual(self.count(), 0)

    def test_commits_rise_and_end_with_e(self) -> None:
        stage = Stage(P, Durations(poc_stage_duration=10))
        self.api.stage = stage
        for height in range(P, stage.end + 3):
            self.api.height = min(height, stage.end)
            self.post(generated_body(P, 1, [height]))
            self.api.flush()
        commits = self.api.commits[P, MODEL]
        self.assertEqual([commit.height for commit in commits], list(range(P + 1, stage.end + 1)))
        self.assertEqual([commit.artifacts for commit in commits], list(range(1, 11)))

    def test_ten_stages_are_kept(self) -> None:
        for height in range(P, P + 12):
            self.api.stage, self.api.height = Stage(height), height
            self.post(generated_body(height, 1, [1]))
        self.assertEqual({start for start, _ in self.api.artifacts}, set(range(P + 2, P + 12)))


class StageTests(SynchronousTestCase):
    """docs/protocol/poc-v2.md, 'Heights'."""

    def test_regular(self) -> None:
        stage = Stage(100)
        self.assertEqual((stage.end, stage.validation_start, stage.validation_end), (160, 165, 185))
        for height, phase in (
            (99, Phase.INFERENCE),
            (100, Phase.GENERATE),
            (148, Phase.GENERATE_WIND_DOWN),
            (165, Phase.VALIDATE),
            (181, Phase.VALIDATE_WIND_DOWN),
            (185, Phase.INFERENCE),
        ):
            self.assertIs(stage.phase(height), phase)

    def test_confirmation(self) -> None:
        stage = Stage(300, is_confirmation=True)
        self.assertEqual((stage.end, stage.validation_start, stage.validation_end), (359, 364, 383))
