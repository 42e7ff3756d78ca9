"""The routes about batches, and about a copy of the database, over an in-memory HTTP connection."""

from __future__ import annotations

import base64

from twisted.internet.defer import Deferred, fail, succeed

from dapi.database.backup import Backups, BackupState, BackupStatus
from dapi.errors import ConfigError, StoreBusyError
from dapi.messages import Kind, State, Via
from dapi.outbox.pages import BatchPage, DamagedRow
from dapi.outbox.retries import Retried
from dapi.outbox.story import BatchStory, TransactionRecord
from dapi.outbox.whole import WholePage
from dapi.server.backup_routes import BackupRoutes
from tests.fake_broker import ROW
from tests.unit.server.resource_client import ResourceClient
from tests.unit.server.test_admin import AdminTestCase

STORY = BatchStory(
    ROW,
    {Via.WEBSOCKET: 1, Via.HTTP: 1},
    1,
    {"stored": 2},
    [TransactionRecord("AB", 5, "sdk", "sdk 5: no", None, 1_000_000_000.25, 1_000_000_001.0, 3)],
)
DAMAGED = DamagedRow(41, {"seq": 41, "batch_id": "cd"}, "damaged on disk: kind")


class StoryTests(AdminTestCase):
    def test_one_batch(self) -> None:
        self.listing.stories["ab12"] = STORY
        code, told = self.got("GET", "/batches/ab12")
        self.assertEqual(code, 200)
        listed = self.got("GET", "/batches")[1]["batches"][0]
        self.assertEqual(told, told | listed)
        self.assertEqual(
            (told["ways"], told["attempts"], told["parts"]), ({"websocket": 1, "http": 1}, 1, {"stored": 2})
        )
        (transaction,) = told["transactions"]
        self.assertEqual(
            transaction,
            {
                "tx_hash": "AB",
                "code": 5,
                "codespace": "sdk",
                "reason": "sdk 5: no",
                "included_height": None,
                "first_at": "2001-09-09T01:46:40.250Z",
                "last_at": "2001-09-09T01:46:41.000Z",
                "times": 3,
            },
        )

    def test_the_id_of_a_batch_of_another_chain_has_a_slash(self) -> None:
        self.listing.stories["old-1/ab"] = STORY
        for path in ("/batches/old-1/ab", "/batches/old-1%2Fab"):
            self.assertEqual(self.got("GET", path)[0], 200, path)

    def test_a_damaged_batch(self) -> None:
        self.listing.stories["cd"] = BatchStory(DAMAGED, None, 0, {}, [])
        code, told = self.got("GET", "/batches/cd")
        self.assertEqual((code, told["state"], told["reason"], told["ways"]), (200, "damaged", DAMAGED.reason, None))

    def test_unknown(self) -> None:
        self.assert_error(self.got("GET", "/batches/nobody"), 404, "'nobody'")


class ExportTests(AdminTestCase):
    def test_batches_with_their_messages(self) -> None:
        self.listing.whole = succeed(WholePage(BatchPage([ROW], 41, [DAMAGED]), {42: b"\x12\xff"}))
        code, told = self.got("GET", "/batches/export?state=failed&cursor=50&limit=1000")
        self.assertEqual((code, told["next"]), (200, 41))
        whole, damaged = told["batches"]
        self.assertEqual(base64.b64decode(whole["message"]), b"\x12\xff")
        self.assertTrue(whole["type_url"].startswith("/"))
        self.assertEqual(whole, whole | self.got("GET", "/batches")[1]["batches"][0])
        self.assertEqual((damaged["state"], damaged["message"], damaged["type_url"]), ("damaged", None, None))
        expected = {"node_id": None, "kind": None, "state": State.FAILED, "limit": 100, "before": 50}
        self.assertEqual(self.listing.asked_whole, expected)

    def test_bad_filters(self) -> None:
        self.assert_error(self.got("GET", "/batches/export?state=lost"), 400, "'lost'")


class RetryTests(AdminTestCase):
    def test_all_that_match(self) -> None:
        self.listing.retried = succeed(Retried(256, 40))
        told = self.got("POST", "/batches/retry?node_id=n1&kind=validated&state=failed&cursor=99")
        self.assertEqual(told, (200, {"retried": 256, "next": 40}))
        self.assertEqual(self.listing.asked_retry, {"node_id": "n1", "kind": Kind.VALIDATED, "before": 99})

    def test_only_what_failed(self) -> None:
        self.assert_error(self.got("POST", "/batches/retry?state=expired"), 400, "only what has failed")
        self.assertEqual(self.listing.asked_retry, {})

    def test_store_busy(self) -> None:
        self.listing.retried = fail(StoreBusyError("the disk is full"))
        self.assert_error(self.got("POST", "/batches/retry"), 503, "full")

    def test_one(self) -> None:
        self.assertEqual(self.got("POST", "/batches/failed/retry")[0], 200)
        self.assert_error(self.got("POST", "/batches/retry/retry"), 404, "'retry'")
        self.assert_error(self.got("POST", "/batches/other/one/retry"), 404, "'other/one'")


class FakeBackups(Backups):
    """Begins what it is told to, and says what the test says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.told = BackupStatus()
        self.error: Exception | None = None

    def begin(self, path: str) -> Deferred[BackupStatus]:
        if self.error is not None:
            return fail(self.error)
        self.begun.append(path)
        return succeed(self.told)

    def status(self) -> BackupStatus:
        return self.told


class BackupTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.backups = FakeBackups()
        self.http = ResourceClient(self, self.api(others=BackupRoutes(self.backups).routes()).resource())

    def test_begin_and_look(self) -> None:
        self.assertEqual(self.got("GET", "/backup")[1]["state"], "none")
        self.backups.told = BackupStatus(BackupState.RUNNING, "/copy.db", 10, 3, began_at=1_000_000_000.25)
        for code, told in (self.got("POST", "/backup", {"path": "/copy.db"}), self.got("GET", "/backup")):
            self.assertIn(code, (200, 202))
            self.assertEqual((told["state"], told["pages_done"], told["path"]), ("running", 3, "/copy.db"))
            self.assertEqual((told["began_at"], told["ended_at"]), ("2001-09-09T01:46:40.250Z", None))
        self.assertEqual(self.backups.begun, ["/copy.db"])

    def test_refused(self) -> None:
        for body, message in (({}, "path"), ({"path": 7}, "path"), ({"path": "/x", "more": 1}, "more"), ([], "object")):
            self.assert_error(self.got("POST", "/backup", body), 400, message)
        self.assert_error(self.got("POST", "/backup"), 415, "Content-Type")
        for error, code in ((ConfigError("path: exists"), 400), (StoreBusyError("no room"), 503)):
            self.backups.error = error
            self.assert_error(self.got("POST", "/backup", {"path": "/x"}), code, str(error))
        self.assertEqual(self.backups.begun, [])
