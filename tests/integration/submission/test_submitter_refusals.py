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
from dapi.simulator.chain.transactions import Transaction
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
async def test_with_a_granted_key_too_the_others_go_together_when_one_is_refused(maker: Maker) -> None:
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
    await chain.mempool(1)
    assert len(list(chain.blockchain.mempool.waiting()[0].host_messages())) == 3
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
async def test_many_that_are_refused_are_found_in_few_blocks(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    for number in range(100):
        await (dapi.record_without_node(1000 + number) if number % 10 == 3 else dapi.record(number))
    chain.switches.is_catching_up = False
    await chain.mempool(1)
    blocks = 0
    while (await dapi.outbox.counts())["confirmed"] + (await dapi.outbox.counts())["failed"] < 100:
        await dapi.next_block(chain)
        await until(lambda: not dapi.look("SELECT 1 FROM unfinished WHERE state = 'stored'"))
        await until(lambda: len(chain.blockchain.mempool) == dapi.submitter.status()["transactions_in_flight"])
        blocks += 1
    counts = await dapi.outbox.counts()
    assert (counts["confirmed"], counts["failed"]) == (90, 10)
    assert blocks <= 8
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_one_that_nobody_names_is_found_by_halving(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    for nonce in range(16):
        await dapi.record(nonce)
    bad = await dapi.record(100)
    refused = TxRefused("inference", 1999, "one of them is wrong")

    def refuse(transaction: Transaction) -> TxRefused | None:
        batches = [message for message in transaction.host_messages() if isinstance(message, SubmitPocBatch)]
        return refused if any(batch.batch_id == bad.batch_id for batch in batches) else None

    chain.state.refuse_tx = refuse
    chain.switches.is_catching_up = False
    await until(lambda: len(chain.blockchain.mempool) + chain.simulated.height > STAGE + 1)
    # A mempool refuses it, and so is asked again: what no mempool takes is only halved at once, and then waits.
    while (await dapi.outbox.counts())["confirmed"] < 16:
        await dapi.at_rest(chain)
        await dapi.next_block(chain)
    # It is in flight only while the mempool is asked again.
    await dapi.when(lambda counts: (counts["confirmed"], counts["stored"], counts["failed"]) == (16, 1, 0))
    assert len(set(dapi.rpc.sent)) < 16
    # It is refused by nodes, not by a block, so it is tried again; and goes through when they take it.
    chain.state.refuse_tx = lambda _: None
    await dapi.blocks_until(chain, lambda counts: counts["confirmed"] == 17)
    assert set(chain.blockchain.batch_counts().values()) == {1}


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
    chain, dapi = maker.pair(None)
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
    for nonce in range(5):
        await dapi.record(nonce)
    await dapi.record_verdict()
    chain.switches.is_catching_up = False
    await chain.mempool(2)
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
        await dapi.when(lambda counts: counts["expired"] == 3)
        await until(lambda: log.lines(LogLevel.error))
    (line,) = log.lines(LogLevel.error)
    assert line.startswith(f"3 generated messages of stage {STAGE} expired: inference 1108: ")


@pytest_twisted.ensureDeferred
async def test_windows_that_are_checked_by_the_mempool_give_the_same(maker: Maker) -> None:
    chain = maker.chain(None, SHORT, rules=Rules(windows_in_check_tx=True))
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.record_verdict()
    # What the mempool refuses is offered again when its window opens.
    while (counts := await dapi.outbox.counts())["confirmed"] < 2:
        assert counts["expired"] == 0
        await dapi.at_rest(chain)
        await dapi.next_block(chain)
    rows = await dapi.when_all(State.CONFIRMED, 2)
    assert [row.included_height in range(18, 24) for row in rows.values() if row.kind == "validated"] == [True]
    while chain.simulated.height < 24:
        await dapi.next_block(chain)
    await dapi.record(2)
    await dapi.when(lambda counts: counts["expired"] == 1)


@pytest_twisted.ensureDeferred
async def test_a_stage_that_the_chain_never_had_is_final(maker: Maker) -> None:
    _chain, dapi = maker.pair(0.1)
    with captured_log() as log:
        receipt = await dapi.record(1, block_height=STAGE - 5)
        rows = await dapi.when_all(State.FAILED, 1)
        await until(lambda: log.lines(LogLevel.error))
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
    chain = maker.chain(None, EpochParams(epoch_length=40), first_height=35)
    dapi = maker.dapi(chain)
    await dapi.record(1, block_height=STAGE + 40)
    await chain.mempool(1)
    await dapi.next_block(chain)
    await dapi.when(lambda counts: counts["stored"] == 1)
    while chain.simulated.height < STAGE + 40:
        assert not chain.blockchain.mempool
        await dapi.next_block(chain)
    await chain.mempool(1)
    await dapi.next_block(chain)
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
async def test_without_a_grant_all_wait_and_go_when_it_is_given(maker: Maker) -> None:
    chain = maker.chain(None, first_height=STAGE + 10)
    chain.simulated.add_account(key(7).public_key)
    chain.simulated.grant(PARTICIPANT, key(7).address, VALIDATION_URL)
    dapi = maker.dapi(chain, seed=7, participant=PARTICIPANT)
    # The missing grant is told at the start, before anything is sent.
    status = await dapi.when_status(state="held")
    assert f"{key(7).address} has no grant for {BATCH_URL}" in status["held"]["generated"]
    for nonce in range(20):
        await dapi.record(nonce)
    await chain.mempool(1)
    with captured_log() as log:
        for _ in range(5):
            await dapi.next_block(chain)
            status = await dapi.when_status(state="held")
            await chain.mempool(1)
    assert log.lines(LogLevel.error) == []
    assert "authz 2" in status["held"]["generated"]
    assert f"grant-ml-ops-permissions COLD_KEY_NAME {key(7).address}" in status["reason"]
    counts = await dapi.outbox.counts()
    assert counts["stored"] + counts["in_flight"] == 20
    # One small transaction a block.
    assert {len(transaction) for transaction in chain.transactions()} == {1}
    # Other kinds are not held up.
    await dapi.record_verdict()
    await chain.mempool(2)
    await dapi.next_block(chain)
    await dapi.when(lambda counts: counts["confirmed"] == 1)
    await chain.mempool(1)
    chain.simulated.grant(PARTICIPANT, key(7).address, BATCH_URL)
    # Seen when the grants are looked through, or by what is sent in each block; in two blocks all is there.
    await dapi.next_block(chain)
    await until(lambda: not dapi.look("SELECT 1 FROM unfinished WHERE state = 'stored'"))
    if (await dapi.outbox.counts())["confirmed"] < 21:
        await until(lambda: chain.blockchain.mempool)
        await dapi.next_block(chain)
    await dapi.when_all(State.CONFIRMED, 21)
    assert (await dapi.when_status(state="submitting"))["held"] == {}


@pytest_twisted.ensureDeferred
async def test_the_gas_limit_follows_what_governance_allows(maker: Maker) -> None:
    chain = maker.chain(None)
    # About eight messages: the hundred that go together first are halved until they fit.
    chain.state.rules.max_gas = 200_000
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    for nonce in range(20):
        await dapi.record(nonce)
    with captured_log() as log:
        chain.switches.is_catching_up = False
        for _ in range(20):
            await until(lambda: len(chain.blockchain.mempool) > 0)
            await dapi.next_block(chain)
            if (await dapi.outbox.counts())["confirmed"] == 20:
                break
    await dapi.when_all(State.CONFIRMED, 20)
    assert set(chain.blockchain.batch_counts().values()) == {1}
    assert len(log.warnings("the chain allows 200000 gas in a block")) == 1
    assert log.lines(LogLevel.error) == []


PROBLEMS = {
    "signature": (TxRefused("sdk", 4, "verification failed"), "may sign for"),
    "account": (TxRefused("sdk", 9, "unknown address"), "create the account"),
    "fee": (TxRefused("sdk", 13, "insufficient fees; got:  required: 7"), "without minimum-gas-prices"),
    "gas": (TxRefused("sdk", 41, "tx gas limit exceeds block max gas 7"), "chain_node.gas_limit"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest_twisted.ensureDeferred
async def test_what_people_can_mend_is_waited_for(maker: Maker, problem: str) -> None:
    refusal, mend = PROBLEMS[problem]
    chain = maker.chain(0.1)
    chain.state.refuse_tx = lambda _: refusal
    dapi = maker.dapi(chain)
    for nonce in range(5):
        await dapi.record(nonce)
    status = await dapi.when_status(state="held")
    assert mend in status["reason"]
    await chain.simulated.when_height(chain.simulated.height + 5)
    assert (await dapi.outbox.counts())["failed"] == 0
    chain.state.refuse_tx = lambda _: None
    await dapi.when_all(State.CONFIRMED, 5)
    assert set(chain.blockchain.batch_counts().values()) == {1}
