"""Checks of what is sent to the chain: what it refuses, what is late, and what was lost."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.chain.grants import grant_command
from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding, Status

_LASTING_SECONDS = 30.0
_RETRY = "POST /admin/v1/batches/<id>/retry"


def held(status: Status) -> Iterator[Finding]:
    """Find kinds of messages that the chain refuses until people mend something."""
    found = status["chain"]
    for kind, problem in found.get("held", {}).items():
        cause = found["causes"][kind]
        problem_id, to_do = _mend(cause, found)
        if cause != "other":
            # Its last part is what to do, which is told apart here.
            problem = problem.rpartition("; ")[0] or problem
        text = f"{kind} messages are held: {problem}"
        yield Finding(problem_id, text, to_do, part=f"{kind} messages", is_logged=True)


def _mend(cause: str, found: Status) -> tuple[ProblemId, str]:
    signer, participant = found["signer"], found["participant"]
    return {
        "grant": (ProblemId.GRANT_MISSING, f"have {participant} run: {grant_command(signer)}"),
        "key": (
            ProblemId.KEY_NOT_PARTICIPANTS,
            f"see that chain_node.signer_key_name and chain_node.account_public_key are right: {signer} signs for "
            f"{participant}",
        ),
        "account": (
            ProblemId.ACCOUNT_MISSING,
            f"send the smallest amount of coins to {signer}: that makes the account",
        ),
        "funds": (ProblemId.FUNDS_MISSING, f"send coins to {signer}, which pays"),
        "fees": (ProblemId.FEES_WANTED, "use a chain node (chain_node.url) without minimum-gas-prices"),
        "gas": (
            ProblemId.GAS_LIMIT_TOO_HIGH,
            "set chain_node.gas_limit to at most what the chain allows in a block",
        ),
    }.get(
        cause,
        (ProblemId.MESSAGES_HELD, "mend what the chain's words say; dapi tries with one message in each block"),
    )


def expiring_grant(status: Status) -> Iterator[Finding]:
    """Find a grant that expires within 30 days."""
    found = status["chain"]
    date = found.get("grant_expires")
    if date is not None:
        to_do = f"before that day, have {found['participant']} run: {grant_command(found['signer'])}"
        yield Finding(ProblemId.GRANT_EXPIRES, f"a grant expires on {date}", to_do, is_logged=True)


def failing(status: Status) -> Iterator[Finding]:
    """Find transactions that are under way and get into no block, for a reason that is known."""
    found = status["chain"]
    if found.get("trouble") is None and found.get("problem") is not None and found["transactions_in_flight"]:
        problem = f"transactions do not get into a block: {found['problem']}"
        to_do = "dapi tries again by itself; if that does not help, look at the chain node that the problem names"
        yield Finding(ProblemId.SENDING_FAILS, problem, to_do, for_seconds=_LASTING_SECONDS, is_logged=True)


def late(status: Status) -> Iterator[Finding]:
    """Find messages whose window is about to end, and a seed that waits."""
    for each in _stage(status).get("late", ()):
        kind, height = each["kind"], each["stage_height"]
        problem = f"{kind} messages of stage {height} wait, {each['blocks_left']} blocks are left"
        if kind == "seed":
            problem += "; without its seed the stage counts nothing"
        to_do = "mend first what else is wrong here; the log says why transactions are not in a block"
        yield Finding(ProblemId.MESSAGES_LATE, problem, to_do, part=f"{kind} messages of stage {height}")


def lost(status: Status) -> Iterator[Finding]:
    """Find what failed or expired in the latest stages."""
    stage = _stage(status)
    for each in status.get("losses", ()):
        kind, height, reason = each["kind"], each["height"], each["reason"]
        number, part = each["messages"], f"{kind} messages of stage {height}"
        is_open = height == stage.get("height") and kind in stage.get("open_kinds", ())
        severity = Severity.CRITICAL if is_open else Severity.WARNING
        if each["state"] == "expired":
            problem = f"{number} {part} expired: {reason}"
            to_do = "nothing can be sent any more; see what was wrong then, so that it does not happen again"
            yield Finding(ProblemId.MESSAGES_EXPIRED, problem, to_do, part=part, is_logged=True)
        elif each["is_damaged"]:
            to_do = "look at the disk: it returns other bytes than were written"
            problem = f"{number} {part} failed: {reason}"
            yield Finding(ProblemId.MESSAGES_DAMAGED, problem, to_do, part=part, severity=severity, is_logged=True)
        else:
            to_do = f"mend what the chain's words say, then send them again ({_RETRY})"
            if not is_open:
                to_do = "see what the chain's words say; their window has ended"
            problem = f"{number} {part} failed: {reason}"
            yield Finding(ProblemId.MESSAGES_FAILED, problem, to_do, part=part, severity=severity, is_logged=True)


def _stage(status: Status) -> Status:
    return (status["chain"].get("poc") or {}).get("stage") or {}
