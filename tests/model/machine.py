"""The steps of the model test, which hypothesis takes in any order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dapi.errors import StoreBusyError
from dapi.messages import Via
from dapi.simulator.chain.epochs import ConfirmationEvent
from tests.model.network import Way
from tests.model.world import CALM_BLOCKS, NODE_IDS, PARAMS, World

node_ids = st.sampled_from(NODE_IDS)
ways_in = st.sampled_from([Via.WEBSOCKET, Via.HTTP])
chain_nodes = st.integers(0, 1)
switches = st.sampled_from(
    [
        "is_mempool_full",
        "is_mempool_rechecking",
        "loses_confirmations",
        "is_indexing_off",
        "is_state_late",
        "is_catching_up",
    ]
)
fractions = st.sampled_from([0.0, 0.5, 1.0])
# For how many blocks something stays wrong.
trouble = st.integers(1, 12)
# A confirmation PoC and what comes before it takes so long.
_CONFIRMATION_BLOCKS = 55


class DapiMachine(RuleBasedStateMachine):
    """Plays the world around dapi, and sees after each step that no promise is broken."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world: World

    @initialize(seed=st.integers(0, 3), has_confirmation=st.booleans())
    def begin(self, seed: int, has_confirmation: bool) -> None:
        """Begin, with epochs that have room for a confirmation PoC, or have not."""
        params = msgspec.structs.replace(PARAMS, epoch_length=PARAMS.epoch_length + 65 * has_confirmation)
        self.world = World(Path(self._folder.name), params, seed)

    # What goes well.

    @rule(nonces=st.integers(1, 20), via=ways_in, blocks=st.integers(1, 3))
    def deliver_and_make_blocks(self, nonces: int, via: Via, blocks: int) -> None:
        for _ in range(blocks):
            self.world.make_and_deliver(nonces, via)
            self.world.block()

    @rule(blocks=st.integers(1, 4))
    def make_blocks(self, blocks: int) -> None:
        for _ in range(blocks):
            self.world.block()

    @rule()
    def be_calm(self) -> None:
        """Heal all, and make blocks until what was kept has to be in one."""
        self.world.heal()
        for _ in range(CALM_BLOCKS + 1):
            if self.world.is_all_in_blocks:
                return
            self.world.block()

    @rule(nonces=st.integers(1, 20), via=ways_in)
    def deliver(self, nonces: int, via: Via) -> None:
        self.world.make_and_deliver(nonces, via)

    @rule(via=ways_in)
    def bring_verdicts(self, via: Via) -> None:
        self.world.bring_verdicts(via)

    @rule(node_id=node_ids, index=st.integers(0, 11), via=ways_in)
    def deliver_again(self, node_id: str, index: int, via: Via) -> None:
        """Bring an earlier batch, of whatever stage, acknowledged or not."""
        made = self.world.nodes[node_id].made
        if made:
            self.world.deliver(node_id, made[index % len(made)], via)

    @rule(node_id=node_ids, via=ways_in, what=st.sampled_from(["run", "stage", "nonces"]))
    def deliver_of_no_stage(self, node_id: str, via: Via, what: str) -> None:
        """Bring a batch of another run, of a stage that there never was, or of the nonces of another node."""
        node, height = self.world.nodes[node_id], self.world.height
        if not node.is_generating:
            return
        changes: dict[str, dict[str, Any]] = {
            "run": {"block_hash": "AB" * 32},
            "stage": {"block_height": height + 1000},
            "nonces": {"nonces": [3 * height + 10**9 // 3 * 3], "dist": [0.5]},
        }
        self.world.deliver(node_id, node.make(2, **changes[what]), via, is_foreign=True)
        node.made.pop()

    # What goes wrong, and soon is healed.

    def _go_on(self) -> None:
        self.world.make_and_deliver(9, Via.HTTP)
        self.world.bring_verdicts(Via.WEBSOCKET)
        self.world.block()

    @rule(index=chain_nodes, way=st.sampled_from(Way), blocks=trouble)
    def change_way_to_chain_node(self, index: int, way: Way, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.chain_hosts[index].way = way
        self._go_on()

    @rule(index=chain_nodes, switch=switches, blocks=trouble)
    def turn_switch(self, index: int, switch: str, blocks: int) -> None:
        self.world.disturb(blocks)
        now = self.world.chain_hosts[index].node.switches
        setattr(now, switch, not getattr(now, switch))
        self._go_on()

    @rule(
        index=chain_nodes,
        lag=st.integers(0, 4),
        delay=st.integers(0, 1),
        drops=fractions,
        blocks=trouble,
    )
    def have_chain_node_lag(self, index: int, lag: int, delay: int, drops: float, blocks: int) -> None:
        """Have a node stay behind, index late (by a block at most: dapi relies on that), or lose transactions."""
        self.world.disturb(blocks)
        now = self.world.chain_hosts[index].node.switches
        now.lag_blocks, now.index_delay_blocks, now.drop_fraction = lag, delay, drops
        self._go_on()

    @rule(index=chain_nodes, blocks=trouble)
    def partition_chain_node(self, index: int, blocks: int) -> None:
        self.world.disturb(blocks)
        node = self.world.chain_hosts[index].node
        if node.is_partitioned:
            node.reconnect()
        else:
            node.partition()
        self._go_on()

    @rule(blocks=trouble)
    def lose_mempools(self, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.chain.mempool.clear()
        for host in self.world.chain_hosts:
            host.node.mempool.clear()
        self._go_on()

    @rule(seconds=st.sampled_from([1, 11, 61, 600]), blocks=trouble)
    def halt_chain(self, seconds: int, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.001, 30, 61, 599, 700]), blocks=trouble)
    def jump_block_time(self, seconds: float, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.block(seconds)

    @rule()
    def toggle_events(self) -> None:
        self.world.has_events = not self.world.has_events
        self._go_on()

    @rule(blocks=trouble)
    def toggle_grants(self, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.set_grants(given=not self.world.has_grants)
        self._go_on()

    @rule(blocks=trouble)
    def toggle_disk(self, blocks: int) -> None:
        self.world.disturb(blocks)
        is_well = self.world.disk_failure is None
        self.world.set_disk(StoreBusyError("the disk is full") if is_well else None)
        self._go_on()

    @rule(node_id=node_ids, way=st.sampled_from(Way), blocks=trouble)
    def change_way_to_node(self, node_id: str, way: Way, blocks: int) -> None:
        self.world.disturb(blocks)
        self.world.nodes[node_id].way = way
        self._go_on()

    @rule(node_id=node_ids)
    def restart_node(self, node_id: str) -> None:
        self.world.nodes[node_id].restart()
        self._go_on()

    @precondition(lambda self: self.world.process is not None)
    @rule(calls=st.integers(0, 30), blocks=trouble)
    def kill_at_call(self, calls: int, blocks: int) -> None:
        """Have dapi killed at one of its next calls: before it is sent, or before its answer comes."""
        self.world.disturb(blocks)
        assert self.world.process is not None
        self.world.process.life.calls_left = calls
        self._go_on()

    @precondition(lambda self: self.world.process is not None)
    @rule(writes=st.integers(0, 12), blocks=trouble)
    def kill_at_write(self, writes: int, blocks: int) -> None:
        """Have dapi killed at one of its next writes: before it is on disk, or before its answer comes."""
        self.world.disturb(blocks)
        assert self.world.process is not None
        self.world.process.life.writes_left = writes
        self._go_on()

    @precondition(lambda self: self.world.process is not None)
    @rule(blocks=trouble)
    def stop(self, blocks: int) -> None:
        self.world.disturb(blocks)
        assert self.world.process is not None
        self.world.process.stop()
        self.world.bury()

    @precondition(lambda self: self.world.process is None)
    @rule()
    def start(self) -> None:
        self.world.start()
        self._go_on()

    @precondition(lambda self: self.world.state.confirmation is None)
    @rule(delay=st.integers(1, 5))
    def begin_confirmation(self, delay: int) -> None:
        """Begin a confirmation PoC, where there is room for one before the next regular one."""
        world = self.world
        epoch = world.state.epochs.after(world.height)
        upcoming = world.state.epochs.upcoming_at(world.height + 1)
        room = epoch.start + world.state.epochs.params.epoch_length - world.height
        if epoch.index and upcoming is None and room > _CONFIRMATION_BLOCKS:
            start = world.height + delay
            world.state.confirmation = ConfirmationEvent(epoch.index, 1, world.height, start)

        self._go_on()

    @rule(generation=st.integers(22, 32), exchange=st.integers(2, 4))
    def govern(self, generation: int, exchange: int) -> None:
        """Have governance change the windows of the stage, also of one that is under way."""
        self.world.disturb(blocks=1)
        self.world.state.govern(poc_stage_duration=generation, poc_exchange_duration=exchange)
        self._go_on()

    # What must hold.

    @invariant()
    def no_promise_is_broken(self) -> None:
        assert not self.world.broken, "\n".join(self.world.broken)

    def teardown(self) -> None:
        """Heal all, and see to the end of the windows that nothing was lost."""
        world = self.world
        try:
            if world.broken:
                return
            world.heal()
            for _ in range(CALM_BLOCKS + 2):
                world.block()
            missing = set(world.kept) - set(world.on_disk("batch_id"))
            assert not missing, f"acknowledged, and not on disk any more: {missing}"
            claimed = set(world.on_disk("batch_id", "WHERE kind = 'generated' AND state = 'confirmed'"))
            wrong = [each for each in world.kept if each in claimed and world.kept[each].missing]
            assert not wrong, f"confirmed, and in no block: {wrong}"
            self.no_promise_is_broken()
            note(f"{world.height} blocks, {len(world.kept)} batches kept, {world.lives} lives")
        finally:
            world.end()
            self._folder.cleanup()
