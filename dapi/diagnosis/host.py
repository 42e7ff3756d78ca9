"""Checks of what a host does beside the PoC so that it is paid: declared nodes, weight, claims."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status


def upkeep(status: Status) -> Iterator[Finding]:
    """Find tasks that have not had their turn for five minutes."""
    found = _host(status)
    for name in found.get("late", ()):
        problem = f"{name}: not looked after for 5 minutes: {found['problems'][name]}"
        to_do = "look at the chain node that the problem names; dapi tries again by itself"
        yield Finding(ProblemId.UPKEEP_LATE, problem, to_do, part=name, is_logged=True)


def node_version(status: Status) -> Iterator[Finding]:
    """Find a version that the chain wants the nodes to have, and that can be in no path."""
    version = _host(status).get("node_version")
    if version is not None and version["unusable"] is not None:
        problem = f"the chain's version of ML nodes, {version['unusable']!r}, is no part of a path"
        to_do = "set the version of each node (POST /admin/v1/nodes); the nodes are used without one until then"
        yield Finding(ProblemId.NODE_VERSION_UNUSABLE, problem, to_do)


def declared_nodes(status: Status) -> Iterator[Finding]:
    """Find nodes, or models of them, that the chain does not count since they are not declared as they should be."""
    found = _host(status).get("hardware_nodes")
    if found is None:
        return
    if found["is_refused"]:
        problem = "governance knows no model at all: no node is declared"
        to_do = "see whether chain_node.url is of the right network; dapi looks again every 10 blocks"
        yield Finding(ProblemId.NODES_NOT_DECLARED, problem, to_do)
    if found["has_no_effect"]:
        problem = "the chain confirmed the declared nodes, and does not show them: they may count nothing"
        to_do = "compare the nodes with the chain's (inferenced query inference hardware-nodes-all)"
        yield Finding(ProblemId.DECLARING_IN_VAIN, problem, to_do)
    if found["times_undone"]:
        problem = f"what dapi declared on the chain was changed by somebody else, {found['times_undone']} times"
        to_do = "set chain_node.declare_nodes to false if the network's own software declares the nodes"
        yield Finding(ProblemId.DECLARED_BY_OTHERS, problem, to_do)
    for node_id, models in found["unknown_models"].items():
        problem = f"{node_id}: governance knows no model {', '.join(models)}: declared without"
        to_do = "give the node a model that governance knows: a node without one counts nothing"
        yield Finding(ProblemId.MODELS_UNKNOWN, problem, to_do, node_id)


def weight(status: Status) -> Iterator[Finding]:
    """Find nodes whose confirmed batches count nothing."""
    found = _host(status).get("weight")
    for node_id, reason in (found or {}).get("uncounted", {}).items():
        epoch = found["epoch_index"] if found is not None else None
        problem = f"{node_id}: its batches of epoch {epoch} are confirmed but not counted: {reason}"
        yield Finding(ProblemId.NOT_COUNTED, problem, "mend the reason before the next PoC", node_id)


def claims(status: Status) -> Iterator[Finding]:
    """Find rewards that are owed and will not be paid without help."""
    found = (_host(status).get("claim") or {}).get("unpaid")
    if found is None:
        return
    epoch, coins = found["epoch_index"], found["coins"]
    if found["state"] is None:
        problem = f"epoch {epoch}: {coins} are owed, and another key signed its seed: only that key can claim them"
        to_do = "claim them with that key, before the next settlement (chain_node.signer_key_name)"
        yield Finding(ProblemId.CLAIM_OF_OTHER_KEY, problem, to_do)
        return
    said = f"the claim is {found['state']}" + (f" ({found['reason']})" if found["reason"] else "")
    problem = f"epoch {epoch}: {coins} are still owed, and {said}"
    to_do = f"mend what the chain's words say, then send it again (POST /admin/v1/batches/claim-{epoch}/retry)"
    yield Finding(ProblemId.CLAIM_UNPAID, problem, to_do)


def _host(status: Status) -> Status:
    return (status["chain"].get("poc") or {}).get("host") or {}
