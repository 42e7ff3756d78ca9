"""What a stage is worth: from batches, verdicts, seeds and declared nodes to the members of the next epoch.

Facts: docs/protocol/chain.md, 'Weight' and 'Hardware nodes'; docs/protocol/measured.md, 'What is paid'. Not simulated:
the choice of the nodes that get a POC_SLOT (a test writes them into ``epoch_groups``), collateral, caps.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from dapi.simulator.chain.epochs import Epoch
from dapi.simulator.chain.state import ChainState, GroupMember, GroupNode, SettleAmount, StateView

_FREE = (True, False)


def end_block(state: ChainState) -> None:
    """Do what the end of the block at the state's height does for the epochs."""
    epoch = state.epochs.after(state.height)
    if not epoch.index:
        return
    if state.height == state.epochs.validation_window(epoch.start).last:
        _form_groups(state, epoch)
    if state.height == state.epochs.set_new_validators(epoch.start):
        _settle(state, epoch.index - 1)


def effective_weight(view: StateView, epoch_index: int, address: str) -> int:
    """Return what a participant's weight in an epoch is paid for: nodes with a POC_SLOT, and what confirmation left."""
    member = _members(view, epoch_index).get(address)
    return 0 if member is None else member.confirmation_weight + sum(_preserved(view, epoch_index, address).values())


def _form_groups(state: ChainState, epoch: Epoch) -> None:
    """Make the groups of the epoch whose validation has ended; a group that a test has written stays."""
    view = state.at(state.height)
    groups: defaultdict[str, list[GroupMember]] = defaultdict(list)
    for address in sorted(address for index, address in view.seeds if index == epoch.index):
        weights = _weights(view, epoch, address)
        if not weights:
            continue
        by_model = _assigned(view, address, weights)
        has_declared = any(participant == address for participant, _ in view.hardware_nodes)
        assigned = sum(node.poc_weight for nodes in by_model.values() for node in nodes)
        # Without any declared node the chain leaves the weight as it is, and pays nothing for it.
        base = assigned if has_declared else sum(weights.values())
        groups[""].append(GroupMember(address, (), base, assigned))
        for model, nodes in by_model.items():
            weight = sum(node.poc_weight for node in nodes)
            groups[model].append(GroupMember(address, tuple(nodes), weight, weight))
    for model, members in groups.items():
        state.epoch_groups.setdefault((epoch.index, model), tuple(members))


def _weights(view: StateView, epoch: Epoch, address: str) -> Counter[str]:
    """Return what each node of a participant weighs: its new nonces, or what it kept by its POC_SLOT."""
    preserved = _preserved(view, epoch.index - 1, address)
    weights = Counter(preserved)
    if address in view.participants and _is_valid(view, epoch, address):
        serving = {
            node.node_id
            for (index, _), members in view.epoch_groups.items()
            if index == epoch.index - 1
            for member in members
            for node in member.nodes
            if _has_poc_slot(node)
        }
        seen: set[int] = set()
        for key in sorted(key for key in view.batches if key[:2] == (epoch.start, address)):
            stored = view.batches[key]
            # Bare ids are compared, whoever's they are.
            if stored.message.node_id in serving:
                continue
            new = set(stored.message.nonces) - seen
            seen |= new
            weights[stored.message.node_id] += len(new)
    return +weights


def _is_valid(view: StateView, epoch: Epoch, address: str) -> bool:
    """Whether members with more than half of the current weight found a participant's batches valid."""
    members = _members(view, epoch.index - 1)
    valid_weight = sum(
        members[validator].weight
        for (stage, participant, validator), verdict in view.validations.items()
        if (stage, participant) == (epoch.start, address) and validator in members and not verdict.fraud_detected
    )
    return valid_weight > sum(member.weight for member in members.values()) // 2


def _members(view: StateView, index: int) -> dict[str, GroupMember]:
    """Return the members of an epoch; epoch 0 has those that genesis names."""
    group = view.epoch_groups.get((index, ""))
    if group is None and index == 0:
        group = tuple(GroupMember(address, weight=weight) for address, weight in view.participants.items())
    return {member.address: member for member in group or ()}


def _preserved(view: StateView, index: int, address: str) -> dict[str, int]:
    """Return the weights of a participant's nodes that have a POC_SLOT in an epoch."""
    return {
        node.node_id: node.poc_weight
        for (epoch, _), members in view.epoch_groups.items()
        if epoch == index
        for member in members
        if member.address == address
        for node in member.nodes
        if _has_poc_slot(node)
    }


def _assigned(view: StateView, address: str, weights: Counter[str]) -> dict[str, list[GroupNode]]:
    """Return the nodes by model: each declared node is the first of its models'; a node without one counts nothing."""
    by_model: defaultdict[str, list[GroupNode]] = defaultdict(list)
    for node_id, weight in sorted(weights.items()):
        declared = view.hardware_nodes.get((address, node_id))
        models = sorted(set(declared.models) & set(view.models)) if declared is not None else []
        if models:
            by_model[models[0]].append(GroupNode(node_id, _FREE, weight))
    return by_model


def _has_poc_slot(node: GroupNode) -> bool:
    return len(node.timeslots) > 1 and node.timeslots[1]


def _settle(state: ChainState, index: int) -> None:
    """Share out an epoch's reward by effective weight; what was not claimed of the one before is gone."""
    state.settle_amounts.clear()
    view = state.at(state.height)
    weights = {address: effective_weight(view, index, address) for address in _members(view, index)}
    total = sum(weights.values())
    for address, weight in weights.items():
        coins = state.rules.epoch_reward * weight // total if total else 0
        seed = view.seeds.get((index, address))
        if coins and seed is not None:
            state.settle_amounts[address] = SettleAmount(address, coins, index, seed.signature)
