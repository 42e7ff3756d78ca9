"""Checks of the doors: who can come in."""

from __future__ import annotations

from collections.abc import Iterator

from dapi.diagnosis.catalogue import ProblemId
from dapi.diagnosis.problem import Finding, Status
from dapi.messages.urls import is_loopback

CERTIFICATE_DAYS = 14.0
"""So long before its end a certificate is to be renewed."""


def callbacks(status: Status) -> Iterator[Finding]:
    """Find that batches are taken without a token, or that somebody came without a right one."""
    found = status["callbacks"]
    if found["unproven"] == "taken":
        problem = f"batches are taken without a token: whoever reaches port {found['port']} can post for any node"
        to_do = "have dapi command the nodes, and set api.callback_auth to required; or let only the nodes reach it"
        yield Finding(ProblemId.CALLBACKS_OPEN, problem, to_do)
    if found["refused_lately"]:
        address, *others = found["refused_by_address"]
        whence = f"{address} and {len(others)} more" if others else address
        count = sum(found["refused_by_address"].values())
        yield Finding(
            ProblemId.CALLBACKS_REFUSED,
            f"callbacks without a right token are refused: {count} so far, from {whence}",
            "if these are nodes that something else than this dapi commands, set api.callback_auth to optional; else "
            "let nothing but the nodes reach the port",
            is_logged=True,
        )


def admin(status: Status) -> Iterator[Finding]:
    """Find that the admin API's token is sent over the network."""
    host = status["admin"]["host"]
    if not is_loopback(host) and status["admin"]["tls"] is None:
        problem = f"the admin API is bound to {host}, and its token is not encrypted on the way"
        to_do = "let only this machine reach the port, or set tls.certificate and tls.key"
        yield Finding(ProblemId.ADMIN_OPEN, problem, to_do)


def certificate(status: Status) -> Iterator[Finding]:
    """Find that the certificate of the ports has ended or soon will, or that its files cannot be used."""
    # Both ports show the same.
    tls = status["callbacks"]["tls"]
    if tls is None:
        return
    renew = "renew the files of tls.certificate and tls.key: dapi reads them anew by itself"
    days = tls["days_left"]
    if days <= 0:
        problem = f"the certificate of dapi's ports ended {-days:.1f} days ago: whoever checks it does not come in"
        yield Finding(ProblemId.CERTIFICATE_ENDED, problem, renew)
    elif days <= CERTIFICATE_DAYS:
        problem = f"the certificate of dapi's ports ends in {days:.1f} days"
        yield Finding(ProblemId.CERTIFICATE_ENDS, problem, renew)
    if tls["problem"] is not None:
        problem = f"the certificate from before is still shown: {tls['problem']}"
        yield Finding(ProblemId.CERTIFICATE_UNUSABLE, problem, "mend the file that is named", is_logged=True)
