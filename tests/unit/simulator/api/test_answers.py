"""The simulated api container answers as docs/protocol/poc-v2.md, 'Answers' says."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.api.answers import Refused, model_of, route
from dapi.simulator.api.api import ApiState, Commit, SimulatedApi
from dapi.simulator.api.settings import ApiSettings, Line
from dapi.simulator.api.stages import Durations, EventPhase, Phase, Stage
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


def model_in(path: bytes) -> str:
    """The model that a path names."""
    return model_of(route(path).escaped_model)


class PathTests(SynchronousTestCase):
    def test_the_model_is_escaped_twice(self) -> None:
        self.assertEqual(PATH, b"/v2/poc-batches/Qwen%252FQwen3-235B-A22B-Instruct-2507-FP8/generated")
        for path in (PATH, PATH.replace(b"%25", b"%")):
            self.assertEqual((model_in(path), route(path).kind), (MODEL, "generated"), "once is taken, too")
        odd = "a b:c@d+e&f=g$"
        self.assertEqual(callback_path(odd, "generated"), "/v2/poc-batches/a%2520b:c@d+e&f=g$/generated")
        self.assertEqual(model_in(callback_path(odd, "generated").encode()), odd)

    def test_wrong_escapes(self) -> None:
        for path in (b"/v2/poc-batches/%zz/generated", b"/v2/poc-batches/a%2/generated"):
            with self.assertRaises(Refused) as caught:
                route(path)
            self.assertEqual(caught.exception.status, 400)
        self.assertEqual(route(PATH + b"?%").kind, "generated", "nobody reads the query")
        for model, error in ((b"%25", "invalid model_id"), (b"", "model_id required")):
            with self.assertRaises(Refused) as caught:
                model_in(b"/v2/poc-batches/%s/generated" % model)
            self.assertEqual(json.loads(caught.exception.body), {"error": error})

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
        no_model = b"/v2/poc-batches//generated"
        self.assertEqual(self.post(body[:-1], no_model)[0], 400)
        self.assertIn("message", self.post(body[:-1], no_model)[1], "the body before the model")
        self.assertEqual(self.post(body, no_model), (400, "model_id required"), "and the model before the window")

    def test_fields_in_any_case_and_the_last_of_two(self) -> None:
        """As Go reads JSON: a body that dapi read in another way would reach another stage."""
        other, height = P - 400, str(P).encode()
        body = generated_body(other, 1, [1, 3])
        last = body[:-1] + b', "%s": ' + height + b"}"
        for name in (
            b"block_height",
            b"Block_Height",
            b"BLOCK_HEIGHT",
            "bloc\u212a_height".encode(),
            b"bloc\\u212a_height",
        ):
            self.assertEqual(self.post(body), (400, "block_height is not the active PoC stage"))
            self.assertEqual(self.post(last % name), (200, None), name)
        self.assertEqual(self.count(), 2)
        lower = generated_body(P, 2, [2]).replace(b"nonce", b"NONCE").replace(b"artifacts", b"Artifacts")
        self.assertEqual((self.post(lower), self.count()), ((200, None), 3))
        wrong = generated_body(P, 1, [5])
        self.assertEqual(self.post(wrong.replace(b'"02', b'"\xff2'))[0], 200, "what is no UTF-8 is replaced")
        for odd in (b"NaN", b'"x"', b"1e400"):
            self.assertEqual(self.post(body[:-1] + b', "Node_Id": %s}' % odd)[0], 400)

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
        self.assertEqual(self.post(generated_body(P, 1, [1, 3, 5, 7])), (503, "failed to store artifacts"))
        self.assertEqual(self.count(), 2, "some of the body may be in")


class ValidatedTests(AnswerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.api.height = Stage(P).validation_start

    def validate(self, body: bytes, path: bytes = VALIDATED, content_type: str = "application/json") -> tuple[int, Any]:
        return self.post(body, path, content_type)

    def test_the_window(self) -> None:
        stage, closed = Stage(P), (503, "not in PoC validate phase")
        for height, answer in (
            (P, closed),
            (stage.validation_start - 1, closed),
            (stage.validation_start, (200, None)),
            (stage.validation_end - 1, (200, None)),
            (stage.validation_end, closed),
        ):
            self.api.height = height
            self.assertEqual(self.validate(verdict()), answer)
        self.api.height, self.api.state = stage.validation_start, ApiState.UNSYNCED
        self.assertEqual(self.validate(verdict()), closed)
        self.api.state, self.api.stage = ApiState.RUNNING, None
        self.assertEqual(self.validate(verdict()), closed)

    def test_the_body_first_then_the_model_the_window_and_the_key(self) -> None:
        self.api.height, no_model = P, VALIDATED.replace(MODEL.replace("/", "%252F").encode(), b"")
        wrong, self.api.faults.hand_over_fails = verdict(public_key="xyz"), True
        self.assertEqual(self.validate(wrong, no_model, "text/plain"), (400, {"message": "Unsupported Media Type"}))
        self.assertEqual(self.validate(wrong, no_model), (400, "model_id required"))
        self.assertEqual(self.validate(wrong), (503, "not in PoC validate phase"))
        self.api.height = Stage(P).validation_start
        self.assertEqual(self.validate(wrong), (500, "encoding/hex: invalid byte: U+0078 'x'"))
        self.assertEqual(self.validate(verdict()), (500, "failed to hand the vote over"))
        self.assertEqual(self.api.votes.total(), 0)

    def test_what_does_not_fit_is_400(self) -> None:
        numbers = ("block_height", "node_id", "n_total", "n_mismatch", "p_value")
        misfits: list[dict[str, Any]] = [{"mismatch_nonces": ["1"]}, {"fraud_detected": 0}]
        misfits += [{name: "1"} for name in numbers]
        misfits += [{name: 1} for name in ("request_id", "block_hash", "public_key")]
        for changes in misfits:
            status, error = self.validate(verdict(**changes))
            self.assertEqual(status, 400, changes)
            self.assertIn("message", error)

    def test_a_key_that_is_no_hex_is_500_and_hardly_anything_else(self) -> None:
        self.assertEqual(self.validate(verdict(public_key="03a")), (500, "encoding/hex: odd length hex string"))
        for body in (
            *(b"{}", b"", b"null", verdict(public_key=""), verdict(public_key="03aB")),
            *(verdict(block_height=1), verdict(node_id=99), verdict(some_new_field=[1])),
        ):
            self.assertEqual(self.validate(body), (200, None), body)

    def test_it_counts_how_often_each_vote_was_handed_over(self) -> None:
        other = callback_path("other", "validated").encode()
        for body, path in (
            (verdict(), VALIDATED),
            (verdict(), VALIDATED),
            (verdict(request_id="x"), VALIDATED),
            (verdict(), other),
        ):
            self.assertEqual(self.validate(body, path), (200, None))
        counts = {(vote.model, vote.result.request_id): count for vote, count in self.api.votes.items()}
        self.assertEqual(counts, {(MODEL, "3f0c9a52"): 2, (MODEL, "x"): 1, ("other", "3f0c9a52"): 1})

    def test_an_incomplete_result_makes_a_vote_but_in_line_d(self) -> None:
        incomplete = verdict(n_total=0, public_key="xyz")
        self.assertEqual(self.validate(incomplete)[0], 500)
        self.api.settings = ApiSettings(line=Line.D)
        self.assertEqual(self.validate(incomplete), (200, None), "before its key is looked at")
        self.assertEqual(self.api.votes.total(), 0)
        self.assertEqual(self.validate(verdict()), (200, None))
        self.assertEqual(self.api.votes.total(), 1)


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

    def test_one_commit_a_block_and_a_refused_one_is_taken_for_sent(self) -> None:
        self.post(generated_body(P, 1, [1]))
        self.api.flush()
        self.post(generated_body(P, 1, [3]))
        self.api.flush()
        self.api.height += 1
        self.api.flush()
        self.assertEqual(self.api.committed(P, MODEL), 1, "until the count rises")
        self.post(generated_body(P, 1, [5]))
        self.api.flush()
        self.assertEqual(self.api.commits[P, MODEL], [Commit(P + 1, 1), Commit(P + 2, 3)])

    def test_a_commit_may_have_the_flush_before(self) -> None:
        self.api.settings = ApiSettings(commits_first=True)
        for number in range(3):
            self.api.height = P + number
            self.post(generated_body(P, 1, [number]))
            self.api.flush()
        self.assertEqual(self.api.commits[P, MODEL], [Commit(P + 2, 1), Commit(P + 3, 2)])

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
        stage = Stage(299, is_confirmation=True)
        self.assertEqual(stage.generation_start, 300)
        self.assertEqual((stage.end, stage.validation_start, stage.validation_end), (359, 364, 383))
        self.assertEqual((stage.takes_generated(299), stage.takes_generated(300)), (False, True))

    def test_the_event_of_a_confirmation(self) -> None:
        stage = Stage(295, is_confirmation=True, grace_blocks=5)
        for height, phase in (
            (294, None),
            (295, EventPhase.GRACE),
            (299, EventPhase.GRACE),
            (300, EventPhase.GENERATION),
            (363, EventPhase.GENERATION),
            (364, EventPhase.VALIDATION),
            (382, EventPhase.VALIDATION),
            (383, EventPhase.COMPLETED),
            (384, None),
        ):
            self.assertIs(stage.event_phase(height), phase)
        self.assertIsNone(Stage(295).event_phase(300), "a regular PoC has none")


class EpochsTests(AnswerTestCase):
    """docs/protocol/poc-v2.md, 'What can be asked'."""

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.api._epochs({})
        return told

    def test_the_regular_stage_stays_told_while_a_confirmation_runs(self) -> None:
        self.assertNotIn("active_confirmation_poc_event", self.told())
        self.api.stage = event = Stage(P + 300, is_confirmation=True, grace_blocks=3)
        self.api.height = event.start
        told = self.told()
        self.assertEqual(told["latest_epoch"]["poc_start_block_height"], P)
        found = {"trigger_height": P + 300, "generation_start_height": P + 303, "phase": 1}
        self.assertEqual(told["active_confirmation_poc_event"], found)
        self.assertIs(told["is_confirmation_poc_active"], True)
        self.api.height = event.validation_end
        self.assertEqual(self.told()["active_confirmation_poc_event"]["phase"], 4, "for one block")
        self.api.height += 1
        self.assertNotIn("is_confirmation_poc_active", self.told())

    def test_asking_changes_nothing(self) -> None:
        self.assertEqual(self.api.last_regular, Stage(P), "it is known without a question")
        self.api.stage = None
        self.assertEqual(self.told()["latest_epoch"]["poc_start_block_height"], P)

    def test_without_the_chain_it_is_an_error(self) -> None:
        self.api.faults.chain_down = True
        with self.assertRaises(Refused) as caught:
            self.told()
        self.assertEqual(caught.exception.status, 500)

    def test_the_state_of_a_stage_takes_numbers_as_the_real_one_does(self) -> None:
        for height in ("x", "1_0", " 1", "1" * 19, "\u0661"):
            with self.assertRaises(Refused) as caught:
                self.api._artifacts_state({"height": height, "model_id": MODEL})
            self.assertEqual(json.loads(caught.exception.body), {"error": "invalid height parameter"})
