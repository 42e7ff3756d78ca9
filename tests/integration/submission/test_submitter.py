"""What is stored gets to a simulated chain, each message in one block: the laws of sending."""

from __future__ import annotations

import pytest
import pytest_twisted

from dapi.chain.rpc_answers import tx_hash_of
from dapi.messages import State
from dapi.simulator.chain.epochs import ConfirmationEvent, EpochParams, Epochs
from dapi.simulator.chain.messages import Exec, SubmitPocBatch, SubmitPocValidation
from tests.chain_tools import BATCH_URL, VALIDATION_URL
from tests.integration.submission.chain_and_dapi import STAGE, Maker, key
from tests.integration.waiting import until


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_confirmed_with_its_block(maker: Maker) -> None:
    chain, dapi = maker.pair()
    for nonce in range(5):
        await dapi.record(nonce)
    await dapi.record_verdict()
    rows = await dapi.when_all(State.CONFIRMED, 6)
    assert chain.batch_ids() == {row.batch_id for row in rows.values() if row.kind == "generated"}
    assert len(chain.state.validations) == 1
    for row in rows.values():
        record = chain.blockchain.find(row.tx_hash or "")
        assert record is not None
        assert (record.height, record.code) == (row.included_height, 0)
    assert not chain.blockchain.doubles()
    status = dapi.submitter.status()
    assert (status["state"], status["reason"], status["problem"]) == ("submitting", None, None)
    assert (status["signer"], status["participant"]) == (key(1).address, key(1).address)
    assert status["chain_id"] == "gonka-simulated"


@pytest_twisted.ensureDeferred
async def test_hash_and_timestamp_are_on_disk_before_the_bytes_leave(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    on_disk = []

    def on_send(raw: bytes) -> None:
        on_disk.append((tx_hash_of(raw), dapi.look("SELECT tx_hash, tx_timeout_ns, state FROM unfinished")))

    dapi.rpc.on_send = on_send
    await dapi.record(1)
    await chain.mempool(1)
    tx_hash, ((stored_hash, timeout_ns, state),) = on_disk[0]
    (transaction,) = chain.blockchain.mempool.waiting()
    assert tx_hash == stored_hash == transaction.hash
    assert timeout_ns == transaction.timeout_ns
    assert state == State.IN_FLIGHT
    assert dapi.look("SELECT value FROM numbers WHERE name = 'last_timeout_ns'") == [(timeout_ns,)]


@pytest.mark.parametrize("loses", ["before", "after"])
@pytest_twisted.ensureDeferred
async def test_stopped_while_it_sends_it_offers_the_same_bytes_again(maker: Maker, loses: str) -> None:
    chain, dapi = maker.pair(None)
    dapi.rpc.loses = loses
    await dapi.record(1)
    await dapi.when_sent()
    await chain.mempool(0 if loses == "before" else 1)
    await maker.stop(dapi)

    again = maker.dapi(chain)
    await again.when_sent()
    assert again.rpc.sent[0] == dapi.rpc.sent[0]
    await chain.mempool(1)
    chain.simulated.produce_block()
    (row,) = (await again.when_all(State.CONFIRMED, 1)).values()
    assert row.tx_hash == dapi.rpc.sent[0]
    assert set(again.rpc.sent) == {row.tx_hash}
    assert len(chain.blockchain.ledger) == 1


@pytest_twisted.ensureDeferred
async def test_stopped_after_its_block_it_finds_it_and_sends_nothing(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    await dapi.record(1)
    await chain.mempool(1)
    await maker.stop(dapi)
    chain.simulated.produce_block()
    again = maker.dapi(chain)
    await again.when_all(State.CONFIRMED, 1)
    assert again.rpc.sent == []


@pytest_twisted.ensureDeferred
async def test_an_accepted_broadcast_is_no_success(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.drop_fraction = 1.0
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await until(dapi.hash)
    for _ in range(3):
        await dapi.next_block(chain)
        assert await dapi.outbox.counts() == {"stored": 0, "in_flight": 1, "confirmed": 0, "failed": 0, "expired": 0}


@pytest_twisted.ensureDeferred
async def test_dropped_it_goes_again_when_its_time_has_passed_and_not_before(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.drop_fraction = 1.0
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.when_sent()
    first = dapi.hash()
    ((timeout_ns,),) = dapi.look("SELECT tx_timeout_ns FROM unfinished")
    while chain.time_ns + 5 * 10**9 <= timeout_ns:
        await dapi.next_block(chain)
        assert set(dapi.rpc.sent) == {first}
    chain.switches.drop_fraction = 0.0
    await dapi.next_block(chain)
    await chain.mempool(1)
    second = dapi.hash()
    assert second not in (None, first)
    ((later_ns,),) = dapi.look("SELECT tx_timeout_ns FROM unfinished")
    assert later_ns > timeout_ns
    chain.simulated.produce_block()
    (row,) = (await dapi.when_all(State.CONFIRMED, 1)).values()
    assert row.tx_hash == second


@pytest_twisted.ensureDeferred
async def test_many_dropped_transactions_are_all_confirmed_once(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.drop_fraction = 0.5
    dapi = maker.dapi(chain, max_transaction_bytes=3_000)
    for nonce in range(60):
        await dapi.record(nonce)
    await dapi.when_all(State.CONFIRMED, 60)
    assert set(chain.blockchain.batch_counts().values()) == {1}
    assert len(chain.batch_ids()) == 60


@pytest_twisted.ensureDeferred
async def test_several_messages_share_a_transaction_up_to_its_limit(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain, max_transaction_bytes=100_000)
    for number in range(5):
        await dapi.record_large(1000 * number, 3000)
    for nonce in range(100_000, 100_030):
        await dapi.record(nonce)
    chain.switches.is_catching_up = False
    await until(lambda: sum(len(tx.messages) for tx in chain.blockchain.mempool.waiting()) == 35)
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 35)
    sizes = [len(record.tx.raw) for record in chain.blockchain.latest.records]
    assert max(sizes) <= 100_000
    assert len(sizes) < 35
    assert max(len(messages) for messages in chain.transactions()) > 1


@pytest_twisted.ensureDeferred
async def test_many_are_in_flight_but_no_more_than_allowed(maker: Maker) -> None:
    chain, dapi = maker.pair(None, max_in_flight=4, max_transaction_bytes=10_000)
    for number in range(10):
        await dapi.record_large(1000 * number, 500)
    await chain.mempool(4)
    counts = await dapi.outbox.counts()
    assert counts["stored"] + counts["in_flight"] == 10
    assert dapi.submitter.status()["transactions_in_flight"] == 4
    while await dapi.outbox.counts() != {"stored": 0, "in_flight": 0, "confirmed": 10, "failed": 0, "expired": 0}:
        assert len(chain.blockchain.mempool) <= 4
        await dapi.next_block(chain)
        await until(lambda: chain.blockchain.mempool or not dapi.look("SELECT 1 FROM unfinished"))


@pytest_twisted.ensureDeferred
async def test_the_oldest_stage_goes_first_and_each_stage_and_kind_by_itself(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain)
    await dapi.when_status(reason="catching up")
    # In the inference phase of a chain without a PoC under way, what is of a later stage is refused: its order counts.
    await dapi.record(1, block_height=STAGE + 2000)
    await dapi.record_verdict()
    await dapi.record(2)
    await dapi.record(3)
    chain.switches.is_catching_up = False
    await chain.mempool(3)
    order = [
        [
            (message.poc_stage_start_block_height, type(message).__name__)
            for message in transaction.host_messages()
            if isinstance(message, SubmitPocBatch | SubmitPocValidation)
        ]
        for transaction in sorted(chain.blockchain.mempool.waiting(), key=lambda each: each.timeout_ns or 0)
    ]
    assert order == [[(10, "SubmitPocBatch")] * 2, [(10, "SubmitPocValidation")], [(2010, "SubmitPocBatch")]]


@pytest_twisted.ensureDeferred
async def test_a_warm_key_submits_for_the_participant(maker: Maker) -> None:
    chain = maker.chain()
    participant, warm = key(1), key(7)
    chain.simulated.add_account(warm.public_key)
    for type_url in (BATCH_URL, VALIDATION_URL):
        chain.simulated.grant(participant.address, warm.address, type_url)
    dapi = maker.dapi(chain, seed=7, participant=participant.address)
    for nonce in range(5):
        await dapi.record(nonce)
    await dapi.record_verdict()
    await dapi.when_all(State.CONFIRMED, 6)
    assert {creator for _, creator, _ in chain.state.batches} == {participant.address}
    assert {creator for _, _, creator in chain.state.validations} == {participant.address}
    for delivered in chain.blockchain.ledger:
        record = chain.blockchain.find(delivered.tx_hash)
        assert record is not None
        assert {len(granted) for granted in record.tx.granted} == {1}
        for wrapped in record.tx.messages:
            assert isinstance(wrapped, Exec)
            assert wrapped.grantee == warm.address
    status = dapi.submitter.status()
    assert (status["signer"], status["participant"]) == (warm.address, participant.address)


@pytest_twisted.ensureDeferred
async def test_a_confirmation_poc_is_served_too(maker: Maker) -> None:
    # Its epoch is over when dapi starts: only the confirmation's window is open.
    params = EpochParams(epoch_length=4000)
    chain = maker.chain(None, epochs=Epochs(STAGE, params), first_height=500)
    event = ConfirmationEvent(1, 0, trigger_height=500, generation_start_height=503, poc_seed_block_hash="ab")
    chain.state.confirmation = event
    dapi = maker.dapi(chain)
    await dapi.record(1, block_height=500)
    await chain.mempool(1)
    # Delivered in block 501 it is too early; the chain says that the window opens with block 504.
    await dapi.next_block(chain)
    await until(lambda: dapi.hash() is None)
    chain.simulated.produce_block()
    await until(lambda: dapi.watcher.head and dapi.watcher.head.height == 502)
    # The same bytes may have been offered twice before.
    assert len(set(dapi.rpc.sent)) == 1
    chain.simulated.produce_block()
    await chain.mempool(1)
    chain.simulated.produce_block()
    (row,) = (await dapi.when_all(State.CONFIRMED, 1)).values()
    assert row.included_height == event.batch_window(params).first == 504
    assert {delivered.code for delivered in chain.blockchain.ledger} == {0, 1128}
    assert {batch.batch_id for batch in chain.delivered_batches()} == {row.batch_id}
