"""Same batch, same id; any difference, another id."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import ProofBatch, ValidatedBatch, content_id, decode_envelope, decode_generated
from dapi.messages.content_id import run_id
from tests.batches import generated_batch, generated_fields, validated_batch

int64 = st.integers(-(2**63), 2**63 - 1)
pairs = st.lists(st.tuples(int64, st.floats(allow_nan=False, allow_infinity=False)), max_size=5)


@st.composite
def batches(draw: st.DrawFn) -> ProofBatch:
    drawn = draw(pairs)
    text = st.text(alphabet="ab", max_size=3)
    return ProofBatch(
        public_key=draw(text),
        block_hash=draw(text),
        block_height=draw(st.integers(0, 3)),
        nonces=[nonce for nonce, _ in drawn],
        dist=[dist for _, dist in drawn],
        node_num=draw(st.integers(0, 3)),
    )


class ContentIdTests(SynchronousTestCase):
    def test_it_is_short_enough_for_the_chain(self) -> None:
        batch_id = content_id(generated_batch())
        self.assertRegex(batch_id, "^[0-9a-f]{64}$")

    def test_it_does_not_change_between_versions(self) -> None:
        # Batches on disk keep the id that they got: a change here would double what is delivered again.
        self.assertEqual(
            content_id(generated_batch()), "ba3e1bbaf4c210e662076370e30463d8e21892297de8477afe066c2b1ce9f3b3"
        )
        self.assertEqual(
            content_id(validated_batch()), "6c79493f3f287051ea10b5bfae33e21c866ae0858d20a7a7c7e11404b17fa421"
        )

    def test_the_id_of_a_run_does_not_change_between_versions(self) -> None:
        # It is compared with that of the stage, which may be on disk.
        self.assertEqual(run_id("ABCDEF", "031b84"), "d1fc3c1d7e7ae513")
        self.assertNotEqual(run_id("AB CD", "EF"), run_id("AB", "CD EF"))

    def test_both_ways_give_the_same_id(self) -> None:
        fields = generated_fields(dist=[0.1, 1])
        http = decode_generated(json.dumps(fields).encode())
        reordered = dict(reversed(fields.items()))
        websocket = decode_envelope(
            json.dumps({"id": "x", "type": "generated", "batch": reordered}, separators=(",", ":")).encode()
        )
        self.assertEqual(content_id(http), content_id(websocket.batch))

    def test_each_field_counts(self) -> None:
        changes = {
            "public_key": "02",
            "block_hash": "abcdef",
            "block_height": 1001,
            "nonces": [7, 301],
            "dist": [0.5, 1.5],
            "node_id": 2,
            "received_dist": [0.25, 1.5],
            "r_target": 1.5,
            "fraud_threshold": 1e-8,
            "n_invalid": 1,
            "probability_honest": 0.5,
            "fraud_detected": True,
        }
        self.assertEqual(set(changes), set(ValidatedBatch.__struct_encode_fields__))
        ids = {content_id(validated_batch(**{name: value})) for name, value in changes.items()}
        self.assertEqual(len(ids | {content_id(validated_batch())}), len(changes) + 1)

    def test_kinds_do_not_meet(self) -> None:
        validated = validated_batch()
        generated = ProofBatch(**{name: getattr(validated, name) for name in ProofBatch.__struct_fields__})
        self.assertNotEqual(content_id(validated), content_id(generated))

    def test_text_does_not_flow_into_its_neighbour(self) -> None:
        self.assertNotEqual(
            content_id(generated_batch(public_key="ab", block_hash="c")),
            content_id(generated_batch(public_key="a", block_hash="bc")),
        )

    def test_nan_has_one_id(self) -> None:
        first, second = (validated_batch(dist=[float("nan"), 1.0]) for _ in range(2))
        self.assertEqual(content_id(first), content_id(second))
        self.assertTrue(math.isnan(first.dist[0]))

    @given(batches(), batches())
    def test_same_values_same_id_and_only_they(self, one: ProofBatch, other: ProofBatch) -> None:
        # Bits are compared, not values: -0.0 travels as such, and as such it is another batch.
        self.assertEqual(content_id(one) == content_id(other), repr(one) == repr(other))
