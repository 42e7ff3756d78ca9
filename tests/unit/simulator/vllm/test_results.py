"""Results of validations by the clock, with the real times (docs/protocol/poc-v2.md, 'Senders')."""

from __future__ import annotations

import json

from dapi.http.exchange import AnswerTooLongError, NoAnswerError
from dapi.simulator.vllm.results import ValidationJob, validated_body
from dapi.simulator.vllm.settings import SenderSettings
from tests.unit.simulator.vllm.sender_case import SenderTestCase

# After the first try, when it is refused at once.
TRIES = [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]


def job(number: int = 0) -> ValidationJob:
    return ValidationJob(height=7, public_key=f"03{number:064x}")


class BodyTests(SenderTestCase):
    def test_the_golden_body(self) -> None:
        golden = (
            b'{"request_id": "3f0c9a52-6b1e-4a7d-9c55-0d2f8e1b7a64", "block_hash": "%s", "block_height": 1728000, '
            b'"public_key": "03%s", "node_id": 3, "n_total": 200, "n_mismatch": 1, "mismatch_nonces": [777], '
            b'"p_value": 0.9999999992944, "fraud_detected": false}' % (b"5F" * 32, b"5a" * 32)
        )
        found = validated_body(
            ValidationJob(height=1_728_000, public_key="03" + "5a" * 32, mismatch_nonces=(777,)),
            3,
            "3f0c9a52-6b1e-4a7d-9c55-0d2f8e1b7a64",
        )
        told, golden_told = json.loads(found), json.loads(golden)
        self.assertEqual(list(told), list(golden_told), "the order of the fields")
        self.assertAlmostEqual(told.pop("p_value"), golden_told.pop("p_value"), delta=1e-12)
        self.assertEqual(told, golden_told)
        self.assertEqual(found.partition(b'"p_value"')[0], golden.partition(b'"p_value"')[0], "byte for byte")

    def test_too_many_mismatches_are_fraud(self) -> None:
        for wrong, is_fraud in ((0, False), (20, False), (40, True), (200, True)):
            body = validated_body(
                ValidationJob(height=7, public_key="03", mismatch_nonces=tuple(range(wrong))), 1, "request"
            )
            self.assertIs(json.loads(body)["fraud_detected"], is_fraud, wrong)


class ResultTests(SenderTestCase):
    def participants(self) -> list[int]:
        """Whom the requests are about, by the numbers of their jobs."""
        return [int(json.loads(body)["public_key"][2:], 16) for _, body in self.exchanges.bodies]

    def test_delivered_at_once_to_its_own_path_each_with_an_id_of_its_own(self) -> None:
        self.exchanges.answer = 200
        for number in range(3):
            self.sender.validate(job(number))
        self.assertEqual(self.times(), [0, 0, 0])
        self.assertEqual(set(self.exchanges.urls), {"http://127.0.0.1:9100/k/secret/v2/poc-batches/a%252Fb/validated"})
        self.assertEqual(self.results, [body for _, body in self.exchanges.bodies])
        self.assertEqual(len({json.loads(body)["request_id"] for body in self.results}), 3)
        counts = self.sender.results.counts
        self.assertEqual((counts.made, counts.delivered, counts.tries), (3, 3, 3))

    def test_ten_tries_with_the_waits_of_artifacts_and_then_it_is_dropped(self) -> None:
        self.exchanges.answer = NoAnswerError("refused")
        self.sender.validate(job())
        self.pass_time(300)
        self.assertEqual(self.times(), TRIES)
        self.assertEqual(len({body for _, body in self.exchanges.bodies}), 1, "the same bytes")
        counts = self.sender.results.counts
        self.assertEqual((counts.dropped, counts.tries, self.results), (1, 10, []))

    def test_a_try_has_10_s_in_all(self) -> None:
        self.sender.validate(job())
        self.pass_time(14)
        self.assertEqual(self.times(), [0, 11])

    def test_any_answer_below_400_is_a_delivery(self) -> None:
        answers: list[int | Exception] = [200, 302, AnswerTooLongError(200, b"")]
        for number, answer in enumerate(answers):
            self.exchanges.answer = answer
            self.sender.validate(job(number))
        self.assertEqual(len(self.results), 3)
        for number, status in enumerate((400, 500, 503)):
            self.exchanges.answer = status
            self.sender.validate(job(number))
        self.assertEqual(len(self.results), 3)
        self.exchanges.answer = 200
        self.pass_time(1)
        self.assertEqual(len(self.results), 6)

    def test_ten_at_once_and_one_that_waits_for_its_next_try_keeps_its_place(self) -> None:
        for number in range(12):
            self.sender.validate(job(number))
        self.assertEqual(self.participants(), list(range(10)))
        self.exchanges.open[3].callback((500, b""))
        self.assertEqual(len(self.participants()), 10, "its place is not free")
        self.exchanges.open[4].callback((200, b""))
        self.assertEqual(self.participants()[10:], [10])
        self.pass_time(1)
        self.assertEqual(self.participants()[10:], [10, 3])

    def test_they_go_on_while_artifacts_are_made(self) -> None:
        self.sender.validate(job())
        self.sender.generate(8)
        self.exchanges.answer = 200
        self.pass_time(11)
        self.assertEqual(len(self.results), 1)

    def test_a_job_waits_while_artifacts_are_made_and_the_stop_forgets_it(self) -> None:
        self.exchanges.answer = 200
        self.sender.generate(7)
        self.sender.validate(job())
        self.pass_time(60)
        self.assertEqual(self.sender.jobs_waiting, 1)
        self.successResultOf(self.sender.stop())
        self.pass_time(60)
        self.assertEqual((self.sender.jobs_waiting, self.results), (0, []))
        self.assertNotIn(self.sender.results._url, self.exchanges.urls)
        self.sender.validate(job())
        self.assertEqual(len(self.results), 1)

    def test_a_stop_forgets_what_is_tried_what_waits_and_what_is_in_the_queue(self) -> None:
        for number in range(12):
            self.sender.validate(job(number))
        self.exchanges.open[0].callback((200, b""))
        self.exchanges.open[1].callback((503, b""))
        self.successResultOf(self.sender.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        counts = self.sender.results.counts
        self.assertEqual((counts.made, counts.delivered, counts.forgotten), (12, 1, 11))
        requests = len(self.exchanges.bodies)
        self.exchanges.answer = 200
        self.pass_time(200)
        self.assertEqual(len(self.exchanges.bodies), requests)


class FullQueueTests(SenderTestCase):
    settings = SenderSettings(max_results=20)

    def test_the_oldest_that_waits_is_dropped(self) -> None:
        self.assertEqual(SenderSettings().max_results, 10_000, "the real one")
        for number in range(35):
            self.sender.validate(job(number))
        self.assertEqual(self.sender.results.counts.dropped, 5)
        self.exchanges.answer = 200
        for request in list(self.exchanges.open):
            request.callback((200, b""))
        delivered = [int(json.loads(body)["public_key"][2:], 16) for body in self.results]
        self.assertEqual(sorted(delivered), [*range(10), *range(15, 35)])
