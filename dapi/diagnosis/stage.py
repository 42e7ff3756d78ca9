"""Checks of the stage that is under way: phases, seed, validation, and batches that will not count."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding, Status, serves_poc_v2

_PHASES_SECONDS = 10.0
_VALIDATION_SECONDS = 30.0
_FEW_BLOCKS = 3


def phases(status: Status) -> Iterator[Finding]:
    """Find that dapi does not drive the nodes, which PoC v2 does not need, or cannot follow the phases."""
    found = status["chain"]
    poc = found.get("poc")
    if poc is None:
        if serves_poc_v2(status):
            return
        is_without_chain = found["state"] == "not configured"
        reason = "no chain is configured" if is_without_chain else "poc.follow_chain is false"
        problem = f"dapi does not drive the nodes: {reason}"
        to_do = "have something else give them their commands (POST /admin/v1/poc/…), or let dapi follow the chain"
        yield Finding(ProblemId.NOT_DRIVING, problem, to_do)
    elif poc["problem"] is not None and poc["problem"] != found["reason"]:
        problem = f"the phases are not followed now, and the nodes are left as they are: {poc['problem']}"
        to_do = "look at the chain node that the problem names; dapi tries again by itself"
        yield Finding(ProblemId.PHASES_NOT_FOLLOWED, problem, to_do, for_seconds=_PHASES_SECONDS, is_logged=True)


def seed(status: Status) -> Iterator[Finding]:
    """Find that the seed, without which a stage counts nothing, is not on disk yet."""
    stage = _stage(status)
    if stage.get("seed_problem") is not None:
        problem = f"{stage['seed_problem']}; without its seed the stage counts nothing"
        yield Finding(ProblemId.SEED_NOT_STORED, problem, "make room on the disk of the database")


def kept_for_nothing(status: Status) -> Iterator[Finding]:
    """Find messages that are kept and not sent: they are of no stage, of another run, or not what the node was asked.

    Batches are lost by that while the window of their stage is open: the node computes for nothing.
    """
    poc, stage = status["chain"].get("poc") or {}, _stage(status)
    for each in (poc.get("not_of_their_stage") or {}).get("kept", ()):
        node_id, height, kind = each["node_id"], each["height"], each["kind"]
        problem_id, to_do = ProblemId.BATCHES_NOT_OF_STAGE, "see that nothing else than this dapi commands the node"
        if each["has_others_nonces"]:
            problem_id = ProblemId.NONCES_OF_OTHERS
            why = "their nonces are those of other nodes"
            to_do = "see what this node runs, and what else commands it"
        elif height is None:
            why = "the chain has told of no stage with their height"
        elif kind == "validated":
            problem_id = ProblemId.VERDICTS_NOT_ASKED_FOR
            why = f"they are verdicts that dapi did not ask the node for in stage {height}"
        else:
            why = f"their block hash or public key is not that of stage {height}"
        is_open = height is not None and height == stage.get("height") and kind in stage["open_kinds"]
        yield Finding(
            problem_id,
            f"{node_id or 'HTTP callbacks'}: {each['messages']} messages are kept and not sent: {why}",
            to_do,
            node_id,
            part=f"{kind} messages of " + ("no stage" if height is None else f"stage {height}"),
            severity=Severity.CRITICAL if is_open and kind == "generated" else Severity.WARNING,
        )


def preserved(status: Status) -> Iterator[Finding]:
    """Find that it is not known which nodes stay in inference."""
    stage = _stage(status)
    if stage.get("preserved_problem") is not None:
        problem = (
            f"stage {stage['height']}: which nodes stay in inference is not known, so all take part: "
            f"{stage['preserved_problem']}"
        )
        to_do = "look at the chain node that the problem names; dapi asks again at each block"
        yield Finding(ProblemId.PRESERVED_UNKNOWN, problem, to_do)


def ids_taken(status: Status) -> Iterator[Finding]:
    """Find nodes whose batches the chain drops: it compares the bare ids of all participants' nodes."""
    stage = _stage(status)
    for node_id in stage.get("nodes_in_vain", ()):
        problem = (
            f"{node_id}: another participant's node of this id serves inference during PoC (POC_SLOT), so the chain "
            f"drops all batches of ours in stage {stage['height']} without a word"
        )
        to_do = "after this stage, give the node an id that nobody else in the network has"
        yield Finding(ProblemId.NODE_ID_TAKEN, problem, to_do, node_id)


def validation(status: Status) -> Iterator[Finding]:
    """Find that others' batches cannot be had, or that verdicts will be missing at the end of the window."""
    poc = status["chain"].get("poc") or {}
    found, situation = poc.get("validation"), poc.get("situation")
    if found is None or found["is_over"]:
        return
    if found["is_failing"]:
        problem = f"the batches of stage {found['height']} cannot be had: {found['problem']}"
        to_do = "raise timeout_broadcast_tx_commit in the chain node's config.toml (120s), or use another chain node"
        yield Finding(ProblemId.VALIDATION_STUCK, problem, to_do, for_seconds=_VALIDATION_SECONDS, is_logged=True)
    if found["unanswered"] and situation is not None and situation["blocks_left"] <= _FEW_BLOCKS:
        problem = (
            f"stage {found['height']}: {found['unanswered']} of {found['participants']} participants have no verdict, "
            f"and {situation['blocks_left']} blocks are left"
        )
        to_do = "look at the nodes that validate: chain.poc.validation in the status says what each of them holds"
        yield Finding(ProblemId.VALIDATION_UNANSWERED, problem, to_do)


def _stage(status: Status) -> Status:
    return (status["chain"].get("poc") or {}).get("stage") or {}
