"""Which callback token a node is told, and which ones are right, over stages, restarts and an upgrade."""

from __future__ import annotations

import contextlib
import sqlite3

import msgspec

from dapi.broker.nodes import Node
from dapi.database.file import APPLICATION_ID
from dapi.database.schema import SCHEMA_VERSIONS
from dapi.errors import StoreBusyError, UnknownNodeError
from dapi.phases.duty import Duty
from tests.nodes import SynchronousDatabase, node_config
from tests.unit.broker.broker_case import CALLBACK_URL, BrokerTestCase

WITH_TOKENS = next(number for number, script in enumerate(SCHEMA_VERSIONS) if "token_num" in script)


class TokenRotationCase(BrokerTestCase):
    """A broker whose stages begin by hand."""

    def node(self, node_id: str = "a") -> Node:
        return self.worker(node_id).node

    def told(self, height: int, node_id: str = "a") -> str:
        """Begin a stage by hand; the end of the base that the node is told."""
        self.command_all(Duty.GENERATE, height, "AB", "02aa")
        url: str = self.stubs[node_id].bodies[-1]["url"]
        return url.removeprefix(CALLBACK_URL)

    def rotate(self, node_id: str = "a") -> None:
        self.successResultOf(self.broker.rotate_token(node_id))

    def right(self, node_id: str = "a") -> list[int]:
        return [token_num for token_num in range(10) if self.node(node_id).takes_token(token_num)]


class TokenRotationTests(TokenRotationCase):
    """Nodes that were registered with a token."""

    def test_a_new_node_has_its_first_token(self) -> None:
        self.add("a", "b")
        self.assertEqual((self.told(100), self.told(100, "b")), ("/1-1", "/2-1"))
        self.assertEqual(self.right(), [1])

    def test_the_old_one_is_told_and_right_until_the_stage_ends(self) -> None:
        self.add("a", "b")
        self.told(100)
        self.rotate()
        self.assertEqual((self.right(), self.right("b")), ([1, 2], [1]))
        # Another base would begin the node's proof of work anew, here with validation.
        self.command_all(Duty.VALIDATE, 100, "AB", "02aa")
        self.assertEqual(self.stubs["a"].bodies[-1]["url"], f"{CALLBACK_URL}/1-1")
        self.restart()
        self.assertEqual((self.told(100), self.right()), ("/1-1", [1, 2]))
        self.assertEqual((self.told(200), self.told(200, "b")), ("/1-2", "/2-1"))
        self.assertEqual((self.right(), self.right("b")), ([2], [1]))
        self.restart()
        self.assertEqual(self.right(), [2])

    def test_twice_in_a_stage(self) -> None:
        self.add("a")
        self.told(100)
        self.rotate()
        self.rotate()
        self.assertEqual((self.told(100), self.right()), ("/1-1", [1, 3]))
        self.assertEqual((self.told(200), self.right()), ("/1-3", [3]))

    def test_before_any_stage(self) -> None:
        self.add("a")
        self.rotate()
        self.assertEqual(self.right(), [1, 2])
        self.assertEqual((self.told(100), self.right()), ("/1-2", [2]))

    def test_the_stage_is_known_from_the_database(self) -> None:
        self.add("a")
        self.database._connection.execute("INSERT INTO stages (height, stage, node_count) VALUES (100, '', 2)")
        self.rotate()
        self.assertEqual((self.told(100), self.right()), ("/1-1", [1, 2]))

    def test_of_a_chain_that_begins_anew(self) -> None:
        self.add("a")
        self.told(100)
        self.rotate()
        self.assertEqual((self.told(50), self.right()), ("/1-2", [2]))

    def test_is_kept_when_the_node_is_changed_or_comes_back(self) -> None:
        self.add("a")
        self.rotate()
        self.told(100)
        self.add("a", poc_port=1234)
        self.assertEqual(self.right(), [2])
        self.successResultOf(self.broker.remove_node("a"))
        self.failureResultOf(self.broker.rotate_token("a"), UnknownNodeError)
        self.add("a")
        self.assertEqual(self.right(), [2])

    def test_what_cannot_be_stored_changes_nothing(self) -> None:
        self.add("a")
        self.told(100)
        self.rotate()
        self.database.failure = StoreBusyError("the disk is full")
        self.failureResultOf(self.broker.rotate_token("a"), StoreBusyError)
        self.failureResultOf(self.broker.begin_stage(200, 2), StoreBusyError)
        self.assertEqual(self.right(), [1, 2])
        self.database.failure = None
        self.assertEqual(self.told(200), "/1-2")

    def test_a_stage_that_goes_on_writes_nothing(self) -> None:
        self.add("a")
        self.told(100)
        self.rotate()
        self.database.failure = StoreBusyError("the disk is full")
        self.successResultOf(self.broker.begin_stage(100, 2))


class UpgradeTests(TokenRotationCase):
    """Nodes of a database from before there were tokens."""

    is_started = False

    def upgrade(self, *heights: int) -> None:
        """Start on such a database, with one node, and stages that began at these heights."""
        self.database.close()
        self.database._path.unlink()
        with contextlib.closing(sqlite3.connect(self.database._path, isolation_level=None)) as earlier:
            earlier.executescript("".join(SCHEMA_VERSIONS[:WITH_TOKENS]))
            earlier.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {WITH_TOKENS}")
            config = msgspec.json.encode(node_config("a")).decode()
            earlier.execute("INSERT INTO nodes VALUES (1, 'a', ?, 1, 0)", (config,))
            for height in heights:
                earlier.execute("INSERT INTO stages (height, stage, node_count) VALUES (?, '', 2)", (height,))
        self.database = SynchronousDatabase(str(self.database._path))
        self.addCleanup(self.database.close)
        self.broker = self.make_broker()
        self.broker.startService()

    def test_in_the_middle_of_a_stage(self) -> None:
        self.upgrade(50, 100)
        # What runs has the base without a token: the same init must not disturb it.
        self.assertEqual((self.told(100), self.right()), ("", [0, 1]))
        self.rotate()
        self.assertEqual((self.told(100), self.right()), ("", [0, 2]))
        self.restart()
        self.assertEqual((self.told(100), self.right()), ("", [0, 2]))
        self.assertEqual((self.told(200), self.right()), ("/1-2", [2]))

    def test_between_two_stages(self) -> None:
        self.upgrade(50, 100)
        self.assertEqual(self.right(), [0, 1])
        self.assertEqual((self.told(200), self.right()), ("/1-1", [1]))

    def test_before_any_stage(self) -> None:
        self.upgrade()
        self.assertEqual(self.right(), [0, 1])
        self.assertEqual((self.told(100), self.right()), ("/1-1", [1]))
