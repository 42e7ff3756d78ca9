"""What systemd is told, and when."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.service.systemd import SystemdNotifier
from tests.logs import log_of


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, bytes]] = []
        self.error: OSError | None = None

    def notifier(self, **environ: str) -> SystemdNotifier:
        return SystemdNotifier(self.clock, {"NOTIFY_SOCKET": "/run/n", **environ}, self.send)

    def send(self, address: str, text: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.told.append((address, text))

    def texts(self) -> list[bytes]:
        texts = [text for _, text in self.told]
        self.told.clear()
        return texts

    def test_without_a_watchdog_nothing_is_left_to_do(self) -> None:
        notifier = self.notifier()
        self.assertEqual(self.told, [])
        notifier.startService()
        self.assertEqual(self.told, [("/run/n", b"READY=1")])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(notifier.stopService())
        self.assertEqual(self.told[1:], [("/run/n", b"STOPPING=1")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_watchdog_hears_from_it_three_times_in_its_time(self) -> None:
        notifier = self.notifier(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
        notifier.startService()
        self.assertEqual(self.texts(), [b"READY=1\nWATCHDOG=1"])
        self.clock.advance(9.9)
        self.assertEqual(self.texts(), [])
        self.clock.pump([0.1, 10, 10])
        self.assertEqual(self.texts(), [b"WATCHDOG=1"] * 3)
        notifier.stopService()
        self.assertEqual(self.texts(), [b"STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_process_is_watched(self) -> None:
        for environ in ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}):
            self.notifier(**environ).startService()
            self.assertEqual(self.texts(), [b"READY=1"])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ready_is_said_again_until_it_is_heard(self) -> None:
        log = log_of(self)
        self.error = BlockingIOError("full")
        notifier = self.notifier()
        notifier.startService()
        self.clock.pump([1, 1])
        self.assertEqual(len(log.warnings("systemd")), 1)
        self.error = None
        self.clock.advance(1)
        self.assertEqual(self.texts(), [b"READY=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_socket_of_either_kind(self) -> None:
        path = Path(self.mktemp()).absolute()
        abstract = f"dapi-test-{os.getpid()}"
        for address, bound in ((os.path.relpath(path), os.path.relpath(path)), (f"@{abstract}", f"\0{abstract}")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                systemd.bind(bound)
                SystemdNotifier(self.clock, {"NOTIFY_SOCKET": address}).startService()
                self.assertEqual(systemd.recv(100), b"READY=1")
