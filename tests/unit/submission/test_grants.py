"""Grants are looked at before anything is sent, and told of before they expire."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel

from dapi.chain.keyring import SigningKey
from dapi.chain.rpc_answers import QueryResult
from dapi.chain.transactions import BATCH_TYPE_URL, SEED_TYPE_URL
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import Kind, cosmos_pb2
from dapi.phases.poc_version import PocVersion
from dapi.submission.grants import GrantCheck
from dapi.submission.problems import HoldCause, Problems
from dapi.submission.signing import Signing
from tests.logs import log_of
from tests.unit.database.store_tools import StoreTestCase
from tests.unit.submission.submitter_case import FakeRpc, status_at

DAY = 86_400
SIGNER = SigningKey(b"\7" * 32)
PARTICIPANT = SigningKey(b"\1" * 32).address


class GrantingRpc(FakeRpc):
    """A chain with these grants: until when (unix seconds), by type URL."""

    grants: dict[str, int | None]
    queries = 0
    error: Exception | None = None

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        self.queries += 1
        if self.error is not None:
            return fail(self.error)
        asked = cosmos_pb2.QueryGrantsRequest.FromString(data)
        assert (asked.granter, asked.grantee) == (PARTICIPANT, SIGNER.address)
        answer = cosmos_pb2.QueryGrantsResponse()
        for type_url, expiry in self.grants.items():
            value = cosmos_pb2.GenericAuthorization(msg=type_url).SerializeToString()
            grant = answer.grants.add(
                authorization=cosmos_pb2.Any(type_url="/cosmos.authz.v1beta1.GenericAuthorization", value=value)
            )
            if expiry is not None:
                grant.expiration.CopyFrom(cosmos_pb2.Timestamp(seconds=expiry))
        return succeed(QueryResult(answer.SerializeToString(), 1))


class GrantTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)
        self.rpc = GrantingRpc(self.clock)
        self.rpc.grants = {BATCH_TYPE_URL: None, SEED_TYPE_URL: None}
        self.problems = Problems(SIGNER.address, PARTICIPANT, PocVersion(self.rpc))
        self.make(PARTICIPANT)

    def make(self, participant: str) -> None:
        signing = Signing(self.rpc, SIGNER, participant)
        kinds = frozenset({Kind.GENERATED, Kind.SEED})
        self.grants = GrantCheck(self.rpc, signing, self.problems, kinds)

    def check(self, height: int) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.grants.check(status_at(height))))

    def test_a_missing_one_holds_its_kind_alone_and_is_asked_for_once_a_block(self) -> None:
        del self.rpc.grants[SEED_TYPE_URL]
        for _ in range(3):
            self.check(10)
        self.assertEqual(self.rpc.queries, 1)
        self.assertEqual(self.problems.causes, {Kind.SEED: HoldCause.GRANT})
        self.assertIn(f"grant-ml-ops-permissions COLD_KEY_NAME {SIGNER.address}", self.problems.held[Kind.SEED])
        self.check(11)
        self.assertEqual(len(self.log.lines(containing="seed messages are held")), 1)
        self.rpc.grants[SEED_TYPE_URL] = None
        self.check(12)
        self.assertEqual(self.problems.held, {})
        self.check(13)
        self.assertEqual(self.rpc.queries, 3)

    def test_an_expired_one_is_missing(self) -> None:
        # Block 10 has the time 50.
        self.rpc.grants[BATCH_TYPE_URL] = 50
        self.check(10)
        self.assertEqual(set(self.problems.held), {Kind.GENERATED})

    def test_one_that_expires_soon_is_told_once_a_day(self) -> None:
        self.rpc.grants[BATCH_TYPE_URL] = 29 * DAY
        for height in (10, 730, 1450):
            self.check(height)
        command = "the participant has to run: inferenced tx inference grant-ml-ops-permissions COLD_KEY_NAME"
        (line,) = self.log.warnings("a grant expires")
        self.assertTrue(line.startswith(f"a grant expires on 1970-01-30; {command} {SIGNER.address} "), line)
        self.assertEqual(self.problems.grant_expires, "1970-01-30")
        self.rpc.grants[BATCH_TYPE_URL] = 400 * DAY
        self.check(2170)
        self.assertIs(self.problems.grant_expires, None)

    def test_it_is_told_anew_after_a_day(self) -> None:
        # Blocks of 5 s; the grants are looked at each 720 of them.
        self.rpc.grants[BATCH_TYPE_URL] = 29 * DAY
        for height in range(720, 2 * 17_280 + 721, 720):
            self.check(height)
        self.assertEqual(len(self.log.warnings("a grant expires")), 3)

    def test_it_is_told_from_the_thirtieth_day_before_on(self) -> None:
        # Blocks of 5 s.
        for number, (seconds, is_soon) in enumerate(((30 * DAY + 1, False), (30 * DAY, True), (29 * DAY, True)), 1):
            height = 720 * number
            self.rpc.grants[BATCH_TYPE_URL] = 5 * height + seconds
            self.check(height)
            self.assertEqual(self.problems.grant_expires is not None, is_soon)

    def test_a_delivery_without_a_grant_is_asked_about_at_once(self) -> None:
        self.check(10)
        self.problems.hold(Kind.GENERATED, "authz", 2, "authorization not found")
        self.check(11)
        self.assertEqual(self.problems.held, {})

    def test_another_problem_is_not_mended_by_grants(self) -> None:
        for kind in (Kind.GENERATED, Kind.SEED):
            self.problems.hold(kind, "sdk", 5, "no coins")
        self.check(10)
        self.assertEqual(self.problems.causes, {Kind.GENERATED: HoldCause.FUNDS, Kind.SEED: HoldCause.FUNDS})

    def test_what_the_chain_said_of_a_grant_holds_while_it_is_missing(self) -> None:
        text = self.problems.hold(Kind.SEED, "authz", 2, "authorization not found")
        del self.rpc.grants[SEED_TYPE_URL]
        self.check(10)
        self.assertEqual(self.problems.held, {Kind.SEED: text})

    def test_a_chain_that_cannot_tell_is_asked_at_the_next_block(self) -> None:
        for height, error in ((10, ChainUnavailableError("no answer")), (11, ChainRefusedError(6, "sdk", "unknown"))):
            self.rpc.error = error
            # Once in each.
            for _ in range(2):
                self.check(height)
        self.assertEqual((self.rpc.queries, self.problems.held), (2, {}))
        words = [f"the grants of {SIGNER.address} are not known: {error}" for error in ("no answer", "sdk 6: unknown")]
        self.assertEqual(self.log.lines(LogLevel.info), words)

    def test_the_participants_own_key_needs_none(self) -> None:
        self.make(SIGNER.address)
        self.check(10)
        self.assertEqual(self.rpc.queries, 0)
