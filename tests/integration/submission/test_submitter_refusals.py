"""What the chain says no to: what goes again, when, and what is final, kept, and sent again when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from dapi.errors import UnknownBatchError
from dapi.messages import Receipt, State
from dapi.simulator.chain.epochs import EpochParams
from dapi.simulator.chain.messages import HostMessage, SubmitPocBatch
from dapi.simulator.chain.rules import Rules, TxRefused
from tests.chain_tools import BATCH_URL, VALIDATION_URL
from tests.integration.submission.chain_and_dapi import STAGE, Chain, Maker, key, reason_of
from tests.integration.waiting import until
from tests.logs import captured_log

PARTICIPANT = key(1).address
# Batches are accepted in the blocks 11 to 17, validations in 18 to 23.
SHORT = EpochParams(epoch_length=4000, poc_stage_duration=5)


async def one_transaction_of(chain: Chain, *recorded: Callable[[], Deferred[Receipt]]) -> list[HostMessage]:
    """Have what is recorded meanwhile go in one transaction; return its messages once it waits for a block."""
    for record in recorded:
        await record()
    chain.switches.is_catching_up = False
    await chain.mempool(1)
    return list(chain.blockchain.mempool.waiting()[0].host_messages())


@pytest_twisted.ensureDeferred
async def test_one_of_several_is_refused_and_the_others_go_again_without_it(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    records = [partial(dapi.record, nonce) for nonce in range(3)]
    records.insert(1, partial(dapi.record_without_node, 100))
    messages = await one_transaction_of(chain, *records)
    batches = [message for message in messages if isinstance(message, SubmitPocBatch)]
    assert [batch.node_id for batch in batches] == ["node1", "", "node1", "node1"]
    await dapi.next_block(chain)
    counts = await dapi.when(lambda counts: counts["failed"] == 1)
    assert counts["failed"] + counts["in_flight"] + counts["stored"] == 4
    # The other three together, and only they.
    await chain.mempool(1)
    assert len(list(chain.blockchain.mempool.waiting()[0].host_messages())) == 3
    await dapi.next_block(chain)
    await dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (3, 1))
    (failed,) = [row for row in (await dapi.rows()).values() if row.state == State.FAILED]
    assert failed.batch_id == f"{100:064x}"
    assert reason_of(failed).startswith("inference 1145: ")
    assert failed.tx_hash
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_wrapped_into_one_message_each_goes_alone_when_one_is_refused(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.simulated.add_account(key(7).public_key)
    for type_url in (BATCH_URL, VALIDATION_URL):
        chain.simulated.grant(PARTICIPANT, key(7).address, type_url)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain, seed=7, participant=PARTICIPANT)
    records = [partial(dapi.record, nonce) for nonce in range(3)]
    messages = await one_transaction_of(chain, *records, lambda: dapi.record_without_node(100, 5000))
    assert len(messages) == 4
    await dapi.next_block(chain)
    await chain.mempool(4)
    assert {len(list(tx.host_messages())) for tx in chain.blockchain.mempool.waiting()} == {1}
    await dapi.next_block(chain)
    await dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (3, 1))
    assert set(chain.blockchain.batch_counts().values()) == {1}
    # The chain quotes the whole batch; in a log, and in every row that was in its transaction, that is far too much.
    assert len(chain.blockchain.ledger[0].log) > 20_000
    (failed,) = [row for row in (await dapi.rows()).values() if row.state == State.FAILED]
    assert reason_of(failed).startswith("inference 1145: ")
    assert reason_of(failed).endswith("PoC node id is empty")
    assert len(reason_of(failed)) < 1500


@pytest_twisted.ensureDeferred
async def test_too_early_it_goes_again_when_the_window_opens_under_the_same_id(maker: Maker) -> None:
    chain = maker.chain(None, SHORT)
    dapi = maker.dapi(chain)
    receipt = await dapi.record_verdict()
    await chain.mempool(1)
    chain.simulated.produce_block()
    await dapi.when(lambda counts: counts["stored"] == 1)
    while chain.simulated.height < 17:
        assert chain.blockchain.mempool.waiting() == []
        chain.simulated.produce_block()
        await until(lambda: dapi.watcher.head is not None and dapi.watcher.head.height >= chain.simulated.height)
    await chain.mempool(1)
    chain.simulated.produce_block()
    rows = await dapi.when_all(State.CONFIRMED, 1)
    assert rows[receipt.batch_id].included_height == 18
    assert [(delivered.height, delivered.code) for delivered in chain.blockchain.ledger] == [(11, 1108), (18, 0)]


@pytest_twisted.ensureDeferred
async def test_refused_within_the_window_it_goes_again_in_the_next_block(maker: Maker) -> None:
    chain = maker.chain(None)
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await chain.mempool(1)
    # As on a node that has its own idea of when the window opens.
    refused = TxRefused("inference", 1108, "too late")
    chain.state.refuse_message = lambda _: refused
    chain.simulated.produce_block()
    chain.state.refuse_message = lambda _: None
    await chain.mempool(1)
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 1)
    assert [(delivered.height, delivered.code) for delivered in chain.blockchain.ledger] == [(11, 1108), (12, 0)]
    assert len({batch.batch_id for batch in chain.delivered_batches()}) == 1


@pytest_twisted.ensureDeferred
async def test_after_the_window_it_is_final_for_all_of_the_stage_at_once(maker: Maker) -> None:
    chain = maker.chain(None, SHORT, first_height=17)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    records = [partial(dapi.record, nonce) for nonce in range(5)]
    await one_transaction_of(chain, *records, dapi.record_verdict)
    await dapi.next_block(chain)
    await dapi.when(lambda counts: counts["expired"] == 5)
    await chain.mempool(1)
    await dapi.next_block(chain)
    await dapi.when(lambda counts: (counts["confirmed"], counts["expired"]) == (1, 5))
    reasons = {reason_of(row) for row in (await dapi.rows()).values() if row.state == State.EXPIRED}
    assert {reason[:15] for reason in reasons} == {"inference 1108:"}
    assert len(chain.transactions()) == 2


@pytest_twisted.ensureDeferred
async def test_the_log_counts_all_that_expires_not_only_what_was_under_way(maker: Maker) -> None:
    chain = maker.chain(None, SHORT, first_height=17)
    dapi = maker.dapi(chain, max_in_flight=1)
    await dapi.record(1)
    await chain.mempool(1)
    await dapi.record(2)
    await dapi.record(3)
    with captured_log() as log:
        await dapi.next_block(chain)
    assert (await dapi.outbox.counts())["expired"] == 3
    (line,) = log.lines(LogLevel.error)
    assert line.startswith(f"3 generated messages of stage {STAGE} expired: inference 1108: ")


@pytest_twisted.ensureDeferred
async def test_windows_that_are_checked_by_the_mempool_give_the_same(maker: Maker) -> None:
    chain = maker.chain(0.1, SHORT, rules=Rules(windows_in_check_tx=True))
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.record_verdict()
    rows = await dapi.when_all(State.CONFIRMED, 2)
    assert [row.included_height in range(18, 24) for row in rows.values() if row.kind == "validated"] == [True]
    await chain.simulated.when_height(24)
    await dapi.record(2)
    await dapi.when(lambda counts: counts["expired"] == 1)


@pytest_twisted.ensureDeferred
async def test_a_stage_that_the_chain_never_had_is_final(maker: Maker) -> None:
    chain = maker.chain(0.1)
    dapi = maker.dapi(chain)
    with captured_log() as log:
        receipt = await dapi.record(1, block_height=STAGE - 5)
        rows = await dapi.when_all(State.FAILED, 1)
    assert reason_of(rows[receipt.batch_id]).startswith("inference 1107: ")
    (line,) = log.lines(LogLevel.error)
    assert line.startswith(f"1 generated messages of stage {STAGE - 5} failed: inference 1107: ")


@pytest_twisted.ensureDeferred
async def test_a_confirmation_that_is_over_is_final(maker: Maker) -> None:
    # Outside every PoC the chain says 1128 to any height, which heals for a stage that is still to come only.
    chain = maker.chain(0.1, SHORT, first_height=500)
    dapi = maker.dapi(chain)
    await dapi.record(1, block_height=400)
    rows = await dapi.when_all(State.EXPIRED, 1)
    assert [reason_of(row)[:15] for row in rows.values()] == ["inference 1128:"]
    assert len(chain.blockchain.ledger) == 1


@pytest_twisted.ensureDeferred
async def test_a_stage_that_is_still_to_come_is_waited_for(maker: Maker) -> None:
    chain = maker.chain(0.1, EpochParams(epoch_length=40), first_height=35)
    dapi = maker.dapi(chain)
    await dapi.record(1, block_height=STAGE + 40)
    (row,) = (await dapi.when_all(State.CONFIRMED, 1)).values()
    assert row.included_height == STAGE + 41
    # Not asked for in every block until then.
    assert len(chain.blockchain.ledger) == 2


@pytest_twisted.ensureDeferred
async def test_final_means_kept_and_sent_again_when_asked_for(maker: Maker) -> None:
    chain = maker.chain(0.1)
    chain.state.refuse_message = lambda _: TxRefused("inference", 1155, "participant is blocked")
    dapi = maker.dapi(chain)
    receipt = await dapi.record(1)
    rows = await dapi.when_all(State.FAILED, 1)
    assert "inference 1155" in reason_of(rows[receipt.batch_id])
    assert "participant is blocked" in reason_of(rows[receipt.batch_id])
    # Delivered again, it is not sent again.
    assert (await dapi.record(1)).seen == 2
    await chain.simulated.when_height(chain.simulated.height + 3)
    assert len(chain.blockchain.ledger) == 1
    chain.state.refuse_message = lambda _: None
    await dapi.outbox.retry(receipt.batch_id)
    rows = await dapi.when_all(State.CONFIRMED, 1)
    assert rows[receipt.batch_id].reason is None
    with pytest.raises(UnknownBatchError):
        await dapi.outbox.retry(receipt.batch_id)


def codes(chain: Chain) -> list[int]:
    """What became of each message that was in a block."""
    return [delivered.code for delivered in chain.blockchain.ledger]


@pytest_twisted.ensureDeferred
async def test_without_a_grant_it_is_final_until_it_is_granted_and_asked_for(maker: Maker) -> None:
    chain = maker.chain(0.1)
    chain.simulated.add_account(key(7).public_key)
    dapi = maker.dapi(chain, seed=7, participant=PARTICIPANT)
    receipt = await dapi.record(1)
    rows = await dapi.when_all(State.FAILED, 1)
    assert reason_of(rows[receipt.batch_id]).startswith("authz 2: ")
    chain.simulated.grant(PARTICIPANT, key(7).address, BATCH_URL)
    await dapi.outbox.retry(receipt.batch_id)
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_a_signature_that_is_refused_for_good_is_final(maker: Maker) -> None:
    chain = maker.chain(0.1)
    dapi = maker.dapi(chain)
    chain.state.refuse_tx = lambda _: TxRefused("sdk", 4, "verification failed")
    receipt = await dapi.record(1)
    rows = await dapi.when_all(State.FAILED, 1)
    assert rows[receipt.batch_id].reason == "sdk 4: verification failed"
    chain.state.refuse_tx = lambda _: None
    await dapi.outbox.retry(receipt.batch_id)
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_an_account_number_that_has_changed_is_asked_for_anew(maker: Maker) -> None:
    chain = maker.chain(0.1)
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.when_all(State.CONFIRMED, 1)
    chain.simulated.add_account(key(1).public_key, 77)
    for nonce in range(2, 5):
        await dapi.record(nonce)
    await dapi.when_all(State.CONFIRMED, 4)
    assert chain.blockchain.doubles() == {}


@pytest_twisted.ensureDeferred
async def test_an_account_number_that_changes_before_the_block_is_no_end_either(maker: Maker) -> None:
    chain = maker.chain(None)
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await chain.mempool(1)
    chain.simulated.add_account(key(1).public_key, 77)
    await dapi.next_block(chain)
    assert codes(chain) == [4]
    await chain.mempool(1)
    await dapi.next_block(chain)
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_not_there_yet_is_waited_for(maker: Maker) -> None:
    chain = maker.chain(0.1)
    del chain.state.accounts[PARTICIPANT]
    dapi = maker.dapi(chain)
    await dapi.record(1)
    status = await dapi.when_status(state="waiting", reason=PARTICIPANT)
    assert "not found" in status["reason"]
    assert dapi.rpc.sent == []
    chain.simulated.add_account(key(1).public_key)
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_a_second_verdict_on_a_participant_is_final(maker: Maker) -> None:
    chain = maker.chain(0.1)
    dapi = maker.dapi(chain)
    first = await dapi.record_verdict(n_invalid=0)
    await dapi.when_all(State.CONFIRMED, 1)
    second = await dapi.record_verdict(n_invalid=1)
    await dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (1, 1))
    rows = await dapi.rows()
    assert rows[first.batch_id].state == State.CONFIRMED
    assert reason_of(rows[second.batch_id]).startswith("inference 1160: ")
    # Asked for again it is what it was.
    await dapi.outbox.retry(second.batch_id)
    await until(lambda: codes(chain).count(1160) == 2)
    await dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (1, 1))


@pytest_twisted.ensureDeferred
async def test_a_second_verdict_that_was_dropped_before_is_final_too(maker: Maker) -> None:
    chain = maker.chain(0.05)
    dapi = maker.dapi(chain)
    await dapi.record_verdict(n_invalid=0)
    await dapi.when_all(State.CONFIRMED, 1)
    chain.switches.drop_fraction = 1.0
    await dapi.record_verdict(n_invalid=1)
    await until(lambda: len(set(dapi.rpc.sent)) > 2)
    chain.switches.drop_fraction = 0.0
    await dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (1, 1))


@pytest_twisted.ensureDeferred
async def test_the_same_verdict_by_other_lists_is_on_the_chain_already(maker: Maker) -> None:
    # The lists are not sent: for the chain both are the same.
    chain = maker.chain(0.1)
    dapi = maker.dapi(chain)
    first = await dapi.record_verdict(nonces=[1, 2])
    await dapi.when_all(State.CONFIRMED, 1)
    second = await dapi.record_verdict(nonces=[3, 4])
    assert first.batch_id != second.batch_id
    rows = await dapi.when_all(State.CONFIRMED, 2)
    assert reason_of(rows[second.batch_id]).startswith("inference 1160: ")


@pytest_twisted.ensureDeferred
async def test_a_verdict_that_was_on_the_chain_though_nobody_told_is_confirmed(maker: Maker) -> None:
    chain = maker.chain(0.05, first_height=20)
    dapi = maker.dapi(chain)
    # A node that lost its index: what is in a block is not found, not even when its time has passed.
    chain.blockchain.find = lambda tx_hash: None  # type: ignore[method-assign]
    await dapi.record_verdict()
    await until(lambda: len(set(dapi.rpc.sent)) > 1)
    del chain.blockchain.find
    (row,) = (await dapi.when_all(State.CONFIRMED, 1)).values()
    assert reason_of(row).startswith("inference 1160: ")


@pytest_twisted.ensureDeferred
async def test_a_verdict_that_another_process_sent_is_final(maker: Maker) -> None:
    chain = maker.chain(0.1)
    other = maker.dapi(chain, name="other")
    await other.record_verdict(n_invalid=1)
    await other.when_all(State.CONFIRMED, 1)
    dapi = maker.dapi(chain)
    await dapi.record_verdict(n_invalid=2)
    rows = await dapi.when_all(State.FAILED, 1)
    assert [reason_of(row)[:15] for row in rows.values()] == ["inference 1160:"]
    (batch_id,) = rows
    await dapi.outbox.retry(batch_id)
    await until(lambda: codes(chain).count(1160) == 2)
    await dapi.when_all(State.FAILED, 1)
