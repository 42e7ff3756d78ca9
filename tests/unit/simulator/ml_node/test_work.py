"""What a simulated node computes."""

import math
from dataclasses import asdict

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.work import (
    DISTANCE_LIMIT,
    BodyError,
    Generator,
    InitRequest,
    distance,
    probability_honest,
    proof_batch,
    validated_batch,
)


def init_body(**changes: object) -> dict[str, object]:
    return {
        "block_hash": "ABCDEF",
        "block_height": 1000,
        "public_key": "02aa",
        "batch_size": 100,
        "r_target": 1.4013564660458173,
        "fraud_threshold": 1e-7,
        "params": {"dim": 1024},
        "node_id": 2,
        "node_count": 5,
        "url": "http://127.0.0.1:1/v1/poc-batches",
    } | changes


class InitRequestTests(SynchronousTestCase):
    def test_all_known_fields_are_read_and_no_other(self) -> None:
        read = asdict(InitRequest.from_body(init_body(other=1)))
        read["node_id"] = read.pop("node_num")
        self.assertEqual(read, init_body())

    def test_equal_bodies_are_equal_requests(self) -> None:
        self.assertEqual(InitRequest.from_body(init_body()), InitRequest.from_body(init_body()))
        self.assertNotEqual(InitRequest.from_body(init_body()), InitRequest.from_body(init_body(params={})))

    def test_each_field_is_needed_and_named(self) -> None:
        for name in init_body():
            body = init_body()
            del body[name]
            self.assertEqual(self.assertRaises(BodyError, InitRequest.from_body, body).field, name)

    def test_whole_numbers_pass_for_floats_and_not_the_other_way_round(self) -> None:
        self.assertEqual(InitRequest.from_body(init_body(r_target=1)).r_target, 1)
        self.assertEqual(
            self.assertRaises(BodyError, InitRequest.from_body, init_body(block_height=1.0)).field, "block_height"
        )

    def test_a_body_that_is_no_object(self) -> None:
        self.assertEqual(self.assertRaises(BodyError, InitRequest.from_body, [1]).field, "")


class GeneratorTests(SynchronousTestCase):
    def test_nonces_are_those_of_the_nodes_number(self) -> None:
        generator = Generator(InitRequest.from_body(init_body()))
        nonces = generator.batch(50)["nonces"] + generator.batch(50)["nonces"]
        self.assertEqual(len(nonces), 100)
        self.assertEqual(nonces, sorted(set(nonces)))
        self.assertEqual({nonce % 5 for nonce in nonces}, {2})

    def test_all_below_the_target_are_kept_and_no_other(self) -> None:
        batch = Generator(InitRequest.from_body(init_body(r_target=0.5))).batch(30)
        self.assertTrue(all(found < 0.5 for found in batch["dist"]))
        left_out = set(range(2, batch["nonces"][-1], 5)) - set(batch["nonces"])
        self.assertTrue(left_out)
        self.assertTrue(all(distance("02aa", "ABCDEF", 1000, nonce) >= 0.5 for nonce in left_out))

    def test_a_target_that_nothing_meets_ends_too(self) -> None:
        self.assertEqual(Generator(InitRequest.from_body(init_body(r_target=0.0))).batch(3)["nonces"], [])

    def test_distances_follow_from_all_that_they_are_of(self) -> None:
        first = distance("02aa", "ABCDEF", 1000, 7)
        self.assertEqual(first, distance("02aa", "ABCDEF", 1000, 7))
        others = {
            distance("02ab", "ABCDEF", 1000, 7),
            distance("02aa", "ABCDEE", 1000, 7),
            distance("02aa", "ABCDEF", 1001, 7),
            distance("02aa", "ABCDEF", 1000, 8),
        }
        self.assertEqual(len(others | {first}), 5)
        self.assertTrue(all(0 <= found < DISTANCE_LIMIT for found in others))


class VerdictTests(SynchronousTestCase):
    request = InitRequest.from_body(init_body())

    def claim(self, nonces: list[int]) -> dict[str, object]:
        return proof_batch(
            {
                "public_key": "03bb",
                "block_hash": "ABCDEF",
                "block_height": 1000,
                "nonces": nonces,
                "dist": [0.25] * len(nonces),
                "node_id": 0,
            }
        )

    def test_what_a_node_generated_is_honest(self) -> None:
        batch = Generator(self.request).batch(100)
        verdict = validated_batch(self.request, batch)
        self.assertEqual(verdict["dist"], batch["dist"])
        self.assertEqual(
            (verdict["n_invalid"], verdict["probability_honest"], verdict["fraud_detected"]), (0, 1.0, False)
        )

    def test_nonces_beyond_the_target_are_fraud(self) -> None:
        bad = [nonce for nonce in range(1000) if distance("03bb", "ABCDEF", 1000, nonce) > self.request.r_target]
        verdict = validated_batch(self.request, self.claim(bad[:10]))
        self.assertEqual(verdict["n_invalid"], 10)
        self.assertTrue(verdict["fraud_detected"])
        self.assertEqual(verdict["received_dist"], [0.25] * 10)
        self.assertEqual(verdict["node_id"], 0)

    def test_one_miss_is_no_fraud(self) -> None:
        bad = next(nonce for nonce in range(1000) if distance("03bb", "ABCDEF", 1000, nonce) > self.request.r_target)
        good = [nonce for nonce in range(100) if distance("03bb", "ABCDEF", 1000, nonce) < self.request.r_target]
        verdict = validated_batch(self.request, self.claim([bad, *good]))
        self.assertEqual((verdict["n_invalid"], verdict["fraud_detected"]), (1, False))

    def test_nan_on_demand(self) -> None:
        verdict = validated_batch(self.request, self.claim([1, 2]), with_nan=True)
        self.assertTrue(math.isnan(verdict["dist"][0]))
        self.assertFalse(math.isnan(verdict["dist"][1]))
        self.assertEqual(validated_batch(self.request, self.claim([]), with_nan=True)["dist"], [])

    def test_the_binomial_tail(self) -> None:
        self.assertEqual(probability_honest(100, 0), 1.0)
        self.assertAlmostEqual(probability_honest(100, 1), 1 - 0.9995**100, places=12)
        two = 1 - 0.9995**100 - 100 * 5e-4 * 0.9995**99
        self.assertAlmostEqual(probability_honest(100, 2), two, places=12)
        # Coefficients that no float holds.
        self.assertEqual(probability_honest(20_000, 10_000), 0.0)
