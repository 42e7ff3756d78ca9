"""The model test with the same steps each time: 10,000 of them; and that it sees what it has to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet.defer import Deferred, succeed

from dapi.chain.transaction_finder import Search
from dapi.messages import Receipt, Via
from dapi.outbox import cosmos_message_client
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.queries import ANY_RUN
from dapi.submission.decisions import Decisions
from dapi.submission.rows import TransactionInFlight
from dapi.submission.sender import Sender
from dapi.submission.submitter import Submitter
from tests.model.machine import DapiMachine
from tests.model.world import PARAMS, World

STEPS = settings(
    max_examples=100,
    stateful_step_count=100,
    derandomize=True,
    # What failed is printed whole; `make model` makes it smaller.
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_ten_thousand_steps_break_no_promise() -> None:
    run_state_machine_as_test(DapiMachine, settings=STEPS)


def broken_by_a_usual_day(folder: Path) -> str:
    """What is broken after a stage in which one mempool loses everything for a while, and a batch is of another run."""
    world = World(folder, PARAMS, seed=1)
    try:
        for block in range(PARAMS.epoch_length):
            drops = block in range(5, 9)
            for host in world.chain_hosts:
                host.node.switches.drop_fraction = float(drops)
            if drops:
                world.disturb(blocks=1)
            node = world.nodes["a"]
            if node.is_generating:
                world.deliver("a", node.make(1, block_hash="AB" * 32), Via.HTTP, is_foreign=True)
            world.make_and_deliver(5, Via.HTTP)
            world.bring_verdicts(Via.HTTP)
            world.block()
        return "\n".join(world.broken)
    finally:
        world.end()


def test_a_usual_day_breaks_no_promise(tmp_path: Path) -> None:
    assert not broken_by_a_usual_day(tmp_path)


def test_it_sees_an_ack_before_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Outbox.put

    def hasty_put(self: Outbox, entry: OutboxEntry) -> Deferred[Receipt]:
        put(self, entry).addErrback(lambda _: None)
        return succeed(Receipt(entry.batch_id, 1))

    monkeypatch.setattr(Outbox, "put", hasty_put)
    assert "acknowledged, and not on disk" in broken_by_a_usual_day(tmp_path)


def test_it_sees_a_message_that_is_sent_again_too_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = Submitter._decide

    async def impatient(self: Submitter, transaction: TransactionInFlight, search: Search) -> None:
        if transaction in self._in_flight and transaction.hash not in search.found:
            await self._decisions.time_has_passed(transaction)
        else:
            await decide(self, transaction, search)

    monkeypatch.setattr(Submitter, "_decide", impatient)
    assert "twice in a block" in broken_by_a_usual_day(tmp_path)


def test_it_sees_a_transaction_that_is_waited_for_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_on(self: Decisions, transaction: TransactionInFlight) -> None:
        """Do nothing."""

    monkeypatch.setattr(Decisions, "time_has_passed", wait_on)
    monkeypatch.setattr(Sender, "is_to_be_offered", lambda *_: False)
    assert "is in no block after" in broken_by_a_usual_day(tmp_path)


def test_it_sees_a_batch_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosmos_message_client, "run_id", lambda *_: ANY_RUN)
    assert "of no stage, or of another run, was sent" in broken_by_a_usual_day(tmp_path)
