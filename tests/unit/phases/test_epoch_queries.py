"""What the chain's application answers, made into values."""

from __future__ import annotations

import base64

from twisted.internet.defer import Deferred

from dapi.chain.queries import account_number
from dapi.errors import ChainUnavailableError
from dapi.messages import cosmos_pb2, epochs_pb2
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.phases import EpochInfo
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

    def test_an_empty_answer_is_no_epoch_0(self) -> None:
        failure = self.failureResultOf(self.epoch(b""), ChainUnavailableError)
        self.assertIn("EpochInfo: the answer is empty", str(failure.value))

    def test_no_epoch_at_all(self) -> None:
        self.failureResultOf(self.epoch(b"\xff"), ChainUnavailableError)

    def test_account_number(self) -> None:
        response = cosmos_pb2.QueryAccountInfoResponse()
        response.info.account_number = 42
        for value, expected in ((response.SerializeToString(), 42), (b"\xff", None)):
            asking = Deferred.fromCoroutine(account_number(self.client(self.answered(value)), "gonka1"))
            if expected is None:
                self.failureResultOf(asking, ChainUnavailableError)
            else:
                self.assertEqual(self.successResultOf(asking), expected)
