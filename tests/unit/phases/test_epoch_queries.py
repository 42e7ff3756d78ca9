"""What the chain's application answers, made into values."""

from __future__ import annotations

import base64

from twisted.internet.defer import Deferred

from dapi.chain.queries import account_number
from dapi.errors import ChainUnavailableError
from dapi.messages import Kind, cosmos_pb2, epochs_pb2
from dapi.phases.epoch_queries import epoch_info, next_chance
from dapi.phases.phases import ConfirmationEvent, EpochInfo
from tests.unit.chain.chain_nodes import Nodes, RpcTestCase, result


class QueryTests(RpcTestCase):
    def answered(self, value: bytes) -> Nodes:
        return Nodes(a=result({"response": {"code": 0, "value": base64.b64encode(value).decode(), "height": "30"}}))

    def epoch(self, value: bytes) -> Deferred[EpochInfo]:
        return Deferred.fromCoroutine(epoch_info(self.client(self.answered(value)), 30))

    def test_epoch(self) -> None:
        response = epochs_pb2.QueryEpochInfoResponse(block_height=30)
        response.latest_epoch.index, response.latest_epoch.poc_start_block_height = 2, 25
        response.params.epoch_params.epoch_length = 40
        info = self.successResultOf(self.epoch(response.SerializeToString()))
        self.assertEqual((info.block_height, info.index, info.poc_start, info.confirmation), (30, 2, 25, None))
        self.assertEqual(info.next_poc_start(), 65)

    def test_an_answer_about_a_later_block_than_was_asked_of(self) -> None:
        """By its height windows end, and what waits for them is given up."""
        for height, is_taken in ((31, True), (32, True), (33, False), (10**12, False)):
            response = epochs_pb2.QueryEpochInfoResponse(block_height=height)
            if is_taken:
                self.assertEqual(self.successResultOf(self.epoch(response.SerializeToString())).block_height, height)
            else:
                failure = self.failureResultOf(self.epoch(response.SerializeToString()), ChainUnavailableError)
                self.assertIn(f"asked of block 30, it tells of block {height}", str(failure.value))

    def confirming(self) -> epochs_pb2.QueryEpochInfoResponse:
        """Epoch 2, whose PoC started at 25, and a confirmation PoC that was triggered at 90 and generates from 95."""
        response = epochs_pb2.QueryEpochInfoResponse(block_height=100, is_confirmation_poc_active=True)
        response.latest_epoch.index, response.latest_epoch.poc_start_block_height = 2, 25
        values = response.params.epoch_params
        values.epoch_length, values.poc_stage_duration, values.poc_exchange_duration = 400, 20, 2
        values.poc_validation_delay, values.poc_validation_duration = 2, 10
        response.params.poc_params.validation_sample_size = 150
        event = response.active_confirmation_poc_event
        event.epoch_index, event.trigger_height, event.generation_start_height = 2, 90, 95
        event.poc_seed_block_hash = "ab"
        return response

    def test_a_confirmation_and_the_size_of_a_sample(self) -> None:
        nodes = self.answered(self.confirming().SerializeToString())
        info = self.successResultOf(Deferred.fromCoroutine(epoch_info(self.client(nodes), 100)))
        self.assertEqual(info.confirmation, ConfirmationEvent(2, 90, 95, "ab"))
        self.assertEqual((info.sample_size, info.is_poc_v2), (150, False))
        asked = (nodes.params["path"], nodes.params["data"], nodes.params["height"])
        self.assertEqual(asked, ("/inference.inference.Query/EpochInfo", "", "100"))

    def test_the_next_chance_of_a_message(self) -> None:
        # Its batches are taken from 96 to 116, those of the regular stage were from 26 to 47.
        cases = {
            (Kind.GENERATED, 90, 101): 101,
            (Kind.GENERATED, 90, 96): 96,
            (Kind.GENERATED, 90, 90): 96,
            (Kind.GENERATED, 90, 116): 116,
            (Kind.GENERATED, 90, 117): None,
            (Kind.GENERATED, 25, 47): 47,
            (Kind.GENERATED, 25, 48): None,
            # Of no stage that the chain tells of: one that is over, and ones that may come.
            (Kind.GENERATED, 60, 101): None,
            (Kind.GENERATED, 100, 101): None,
            (Kind.GENERATED, 425, 101): 426,
            (Kind.GENERATED, 425, 430): 430,
        }
        rpc = self.client(self.answered(self.confirming().SerializeToString()))
        found = {case: self.successResultOf(Deferred.fromCoroutine(next_chance(rpc, *case))) for case in cases}
        self.assertEqual(found, cases)

    def test_an_empty_answer_is_no_epoch_0(self) -> None:
        failure = self.failureResultOf(self.epoch(b""), ChainUnavailableError)
        self.assertIn("EpochInfo: the answer is empty", str(failure.value))

    def test_no_epoch_at_all(self) -> None:
        failure = self.failureResultOf(self.epoch(b"\xff"), ChainUnavailableError)
        self.assertIn("EpochInfo: the answer is no epoch: ", str(failure.value))

    def test_account_number(self) -> None:
        response = cosmos_pb2.QueryAccountInfoResponse()
        response.info.account_number = 42
        for value, expected in ((response.SerializeToString(), 42), (b"\xff", None)):
            asking = Deferred.fromCoroutine(account_number(self.client(self.answered(value)), "gonka1"))
            if expected is None:
                self.failureResultOf(asking, ChainUnavailableError)
            else:
                self.assertEqual(self.successResultOf(asking), expected)
