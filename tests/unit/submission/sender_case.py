"""A sender of its own, whose turns the test takes."""

from __future__ import annotations

import random

from dapi.chain.transactions import TimestampSource
from dapi.submission.rows import TransactionInFlight
from dapi.submission.sender import Sender
from dapi.submission.settings import SubmitterSettings
from tests.unit.submission.sending_case import LATEST, SendingTestCase


class SenderTestCase(SendingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.timestamps = TimestampSource(random.Random(1))
        self.make(self.settings)
        self.run_to_end(self.poc_version.ask(LATEST))

    def make(self, settings: SubmitterSettings) -> None:
        self.sender = Sender(
            self.clock,
            self.submissions,
            self.chain,
            self.watcher,
            self.state,
            self.decisions,
            poc_version=self.poc_version,
            settings=settings,
            timestamps=self.timestamps,
        )

    def send_all(self) -> None:
        self.run_to_end(self.sender.send())

    def only(self) -> TransactionInFlight:
        """The only transaction in flight."""
        (transaction,) = self.in_flight.all()
        return transaction

    def offer_again(self, transaction: TransactionInFlight) -> None:
        self.run_to_end(self.sender.offer(transaction))
