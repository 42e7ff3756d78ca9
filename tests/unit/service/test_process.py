"""How many files are open is told, above all when no more can be opened."""

from __future__ import annotations

import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from dapi.service import process
from dapi.service.process import process_status


class ProcessTests(SynchronousTestCase):
    def test_a_file_more(self) -> None:
        before = process_status()["open_files"]
        file = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, file)
        self.assertEqual(process_status()["open_files"], before + 1)

    def test_when_no_more_can_be_opened_as_many_are_open_as_may_be(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Whatever number a new file gets, it is too high.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            found = process_status()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual(found, {"open_files": 0, "max_files": 0})

    def test_a_system_that_does_not_tell(self) -> None:
        self.patch(process, "_OPEN_FILES", "/none/such")
        self.assertIsNone(process_status()["open_files"])
