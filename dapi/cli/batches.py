"""``dapi batches``, ``dapi batch``, ``dapi retry`` and ``dapi export``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any, TypeVar

import click

from dapi.cli import show
from dapi.cli.admin_client import segment
from dapi.cli.completion import complete_node_id
from dapi.cli.errors import CliError
from dapi.cli.session import ApiCommand, Session, pass_session

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ("generated", "validated", "seed", "hardware", "claim")
STATES = ("stored", "in_flight", "confirmed", "failed", "expired")
_PAGE = 1000
_NEW_AT_ONCE = 100


def _filters(*, with_state: bool = True) -> Callable[[F], F]:
    """Give a command the filters of a list of batches."""

    def decorate(function: F) -> F:
        if with_state:
            function = click.option("--state", type=click.Choice(STATES), help="Only those in this state.")(function)
        function = click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")(function)
        node = click.option(
            "--node", "node_id", metavar="ID", shell_complete=complete_node_id, help="Only those of this node."
        )
        return node(function)

    return decorate


def _pages(session: Session, path: str, limit: int | None = None, **query: object) -> Iterator[dict[str, Any]]:
    """Yield batches, the newest first, page by page."""
    left = limit
    cursor = None
    while left is None or left > 0:
        page = session.api.get(path, limit=min(left or _PAGE, _PAGE), cursor=cursor, **query)
        yield from page["batches"]
        cursor = page["next"]
        if cursor is None:
            return
        left = None if left is None else left - len(page["batches"])


@click.command(
    cls=ApiCommand,
    examples="""
    dapi batches
    dapi batches --state failed --node node1
    dapi batches --kind claim --limit 3
    dapi batches --follow
    """,
)
@_filters()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest first.")
@click.option("--follow", is_flag=True, help="Then show those that come, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, hidden=True)
@pass_session
def batches(
    session: Session,
    node_id: str | None,
    kind: str | None,
    state: str | None,
    limit: int,
    follow: bool,
    interval: float,
) -> None:
    """List the batches that dapi keeps."""
    query = {"node_id": node_id, "kind": kind, "state": state}
    if follow:
        _follow(session, limit, interval, query)
        return
    if session.is_json:
        found = list(_pages(session, "/batches", limit, **query))
        session.print_json({"batches": found})
        return
    found = list(_pages(session, "/batches", limit, **query))
    if not found:
        click.echo("no batch matches" if any(query.values()) else "dapi keeps no batch yet")
        return
    show.print_all([_table(found, session.now())])


def _follow(session: Session, limit: int, interval: float, query: dict[str, Any]) -> None:
    """Print the last batches, the newest last, and then each that is new."""
    last_seq, is_told = 0, False
    shown = list(_pages(session, "/batches", limit, **query))
    while True:
        for batch in reversed(shown):
            last_seq = max(last_seq, batch["seq"])
            if session.is_json:
                session.print_line(batch)
            else:
                click.echo(_line(batch))
        session.sleep(interval)
        try:
            new = takewhile(lambda batch: batch["seq"] > last_seq, _pages(session, "/batches", **query))  # noqa: B023
            shown = list(new)
            is_told = False
        except CliError as error:
            # dapi is restarted, perhaps: what came meanwhile is shown when it answers again.
            if not is_told:
                error.show()
            shown, is_told = [], True


def _table(found: list[dict[str, Any]], now: float) -> Any:
    rows = [
        (
            show.short_id(batch.get("batch_id")),
            batch.get("node_id"),
            batch.get("kind"),
            batch.get("state"),
            batch.get("via"),
            batch.get("height"),
            batch.get("nonces"),
            show.age(batch.get("received_at"), now),
        )
        for batch in found
    ]
    return show.table(
        ("BATCH", "NODE", "KIND", "STATE", "WAY", "STAGE", "NONCES", "AGE"), rows, right=("STAGE", "NONCES")
    )


def _line(batch: dict[str, Any]) -> str:
    at = show.local_time(batch.get("received_at")).removesuffix(" UTC").rpartition(" ")[2]
    parts = (
        at,
        show.short_id(batch.get("batch_id")),
        *(show.cell(batch.get(name)) for name in ("node_id", "kind", "state", "via")),
        f"stage {show.cell(batch.get('height'))},",
        f"{show.cell(batch.get('nonces'))} nonces",
    )
    return " ".join(parts)


@click.command(
    cls=ApiCommand,
    examples="""
    dapi batch 6ce81abcb590
    dapi batch 6ce81abcb590 --json
    """,
)
@click.argument("batch_id", metavar="ID")
@pass_session
def batch(session: Session, batch_id: str) -> None:
    """Tell all about one batch: how it came, and each transaction that it was in.

    The first 8 characters of its id, or more, are enough.
    """
    found = session.api.get(f"/batches/{segment(batch_id)}")
    if session.is_json:
        session.print_json(found)
        return
    from rich.text import Text

    now = session.now()
    ways = found["ways"]
    facts = [
        ("batch", found.get("batch_id")),
        ("kind", found.get("kind")),
        ("node", found.get("node_id")),
        ("stage", found.get("height")),
        ("nonces", found.get("nonces")),
        ("state", found.get("state")),
        ("reason", found.get("reason")),
        ("came", f"{show.local_time(found.get('received_at'))}, {show.age(found.get('received_at'), now)} ago"),
        ("came last", f"{show.local_time(found.get('last_seen_at'))}, {show.age(found.get('last_seen_at'), now)} ago"),
        ("ways", ", ".join(f"{number} by {way}" for way, number in ways.items() if number) if ways else None),
        ("first way", found.get("via")),
        ("finished", show.local_time(found.get("finished_at"))),
        ("in block", found.get("included_height")),
    ]
    if found["parts"]:
        parts = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in found["parts"].items())
        facts.append(("parts", parts))
    lines: list[Any] = [show.facts(facts), Text("")]
    if not found["transactions"]:
        lines.append(Text("it was in no transaction yet"))
    for each in found["transactions"]:
        times = f", {each['times']} times, this one the last" if each["times"] > 1 else ""
        lines.append(Text(f"transaction {show.cell(each['tx_hash'])}{times}", style="bold"))
        lines.append(Text(f"  {_outcome(each)}"))
    show.print_all(lines)


def _outcome(transaction: dict[str, Any]) -> str:
    at = f", {show.local_time(transaction['last_at'])}" if transaction["last_at"] else ""
    if transaction["code"] == 0:
        return f"code 0 in block {show.cell(transaction['included_height'])}{at}"
    reason = show.cell(transaction["reason"])
    return f"{reason}{at}" if transaction["code"] is None else f"code {transaction['code']}: {reason}{at}"


@click.command(
    cls=ApiCommand,
    examples="""
    dapi retry 6ce81abcb590
    dapi retry --all --node node1
    dapi retry --all --yes --json
    """,
)
@click.argument("batch_id", metavar="[ID]", required=False)
@click.option("--all", "all_of_them", is_flag=True, help="All failed batches that match.")
@_filters(with_state=False)
@click.option("--yes", is_flag=True, help="Do not ask before.")
@pass_session
def retry(
    session: Session, batch_id: str | None, all_of_them: bool, node_id: str | None, kind: str | None, yes: bool
) -> None:
    """Send a failed batch again, or all that match.

    Mend first what made them fail. What has expired cannot be sent any more.
    """
    if (batch_id is None) != all_of_them:
        raise click.UsageError("give the ID of one batch, or --all")
    if batch_id is not None:
        if node_id or kind:
            raise click.UsageError("--node and --kind go with --all")
        whole_id = session.api.get(f"/batches/{segment(batch_id)}")["batch_id"]
        done = session.api.post(f"/batches/{segment(whole_id)}/retry")
        if session.is_json:
            session.print_json(done)
        else:
            click.echo(f"batch {whole_id} is sent again")
        return
    of = "".join([f" of {node_id}" if node_id else "", f" of the kind {kind}" if kind else ""])
    if not yes and not click.confirm(f"Send all failed batches{of} again?", err=True):
        raise CliError("nothing was done")
    total, cursor = 0, None
    while True:
        answer = session.api.post("/batches/retry", node_id=node_id, kind=kind, cursor=cursor)
        total += answer["retried"]
        cursor = answer["next"]
        if cursor is None:
            break
    if session.is_json:
        session.print_json({"retried": total})
    else:
        click.echo(f"{total} {'batch is' if total == 1 else 'batches are'} sent again")


@click.command(
    cls=ApiCommand,
    examples="""
    dapi export --state failed > failed.jsonl
    dapi export --node node1 --kind generated | gzip > node1.jsonl.gz
    """,
)
@_filters()
@pass_session
def export(session: Session, node_id: str | None, kind: str | None, state: str | None) -> None:
    """Print batches whole, one line of JSON each, the newest first.

    `message` is the chain's message as protobuf, in base64, without its creator; null where the chain has it and dapi
    does not keep it any more.
    """
    for found in _pages(session, "/batches/export", node_id=node_id, kind=kind, state=state):
        session.print_line(found)
