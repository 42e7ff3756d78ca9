"""``dapi status``, ``dapi epochs`` and ``dapi restart-advice``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dapi.cli import show
from dapi.cli.errors import CliError, clean
from dapi.cli.exit_codes import ExitCode
from dapi.cli.session import ApiCommand, Session, pass_session

if TYPE_CHECKING:
    from rich.console import RenderableType

_NODES_SHOWN = 20


@click.command(
    cls=ApiCommand,
    examples="""
    dapi status
    dapi status --watch
    dapi status --json | jq '.problems[].problem'
    """,
)
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between.")
@pass_session
def status(session: Session, watch: bool, interval: float) -> None:
    """Show what is wrong, and how everything is."""
    if not watch:
        found = session.api.get("/status")
        if session.is_json:
            session.print_json(found)
        else:
            show.print_all(status_parts(found, session.now()))
        return
    if session.is_json:
        while True:
            session.print_line(session.api.get("/status"))
            session.sleep(interval)
    _watch(session, interval)


def _watch(session: Session, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def picture() -> RenderableType:
        return Group(*status_parts(session.api.get("/status"), session.now()))

    with Live(picture(), console=show.console(), auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            session.sleep(interval)
            try:
                live.update(picture(), refresh=True)
            except CliError as error:
                # dapi is restarted, perhaps.
                live.update(Text(clean(error.message), style=show.COLOURS["critical"]), refresh=True)


def status_parts(found: dict[str, Any], now: float) -> Iterator[RenderableType]:
    """Yield what ``dapi status`` shows, part by part."""
    from rich.text import Text

    yield from _problems(found.get("problems") or [], now)
    yield Text("")
    yield show.facts(
        [
            ("dapi", f"{found.get('version')}, up {show.duration(found.get('uptime_seconds') or 0)}"),
            ("chain", _chain(found)),
            ("phase", _phase(found)),
            ("batches", _batches(found)),
            ("callbacks", _callbacks(found)),
            ("database", _database(found)),
            *_poc_v2(found),
        ]
    )
    nodes = found.get("nodes") or []
    if nodes:
        yield Text("")
        yield nodes_table([(None, node) for node in nodes[:_NODES_SHOWN]], now, standings=_standings(found))
    if len(nodes) > _NODES_SHOWN:
        yield Text(f"… and {len(nodes) - _NODES_SHOWN} more nodes: dapi nodes")


def _problems(problems: list[dict[str, Any]], now: float) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    if not problems:
        yield Text("all is well: nothing is wrong", style=show.COLOURS["ok"])
        return
    yield Text(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}", style="bold")
    for problem in problems:
        severity = str(problem.get("severity"))
        head = Text(f"{severity.upper()}  ", style=show.COLOURS.get(severity, ""))
        head.append(f"{show.cell(problem.get('id'))}, for {show.age(problem.get('since'), now)}", style="default")
        yield Padding(head, (0, 0, 0, 2), expand=False)
        yield Padding(Text(show.cell(problem.get("problem"))), (0, 0, 0, 4), expand=False)
        yield Padding(Text(f"to do: {show.cell(problem.get('to_do'))}"), (0, 0, 0, 4), expand=False)


def _chain(found: dict[str, Any]) -> str:
    chain = found.get("chain") or {}
    height = chain.get("height")
    where = f"{chain.get('chain_id')} at block {height}, " if height is not None else ""
    reason = f": {chain['reason']}" if chain.get("reason") else ""
    return f"{where}{chain.get('state')}{reason}"


def _phase(found: dict[str, Any]) -> str:
    situation = show.field(found, "chain", "poc", "situation")
    if not situation:
        return "not followed"
    stage = situation.get("stage_height")
    left = situation.get("blocks_left")
    if stage is None:
        return f"{situation.get('phase')}, {left} blocks to the next PoC"
    kind = "confirmation PoC" if situation.get("is_confirmation") else "PoC"
    return f"{situation.get('phase')} of the {kind} of stage {stage}, {left} blocks left in the window"


def _batches(found: dict[str, Any]) -> str:
    counts = found.get("batches")
    if not counts:
        return "not known: the database does not answer in time"
    text = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in counts.items())
    oldest = show.field(found, "chain", "oldest_unfinished_seconds")
    return text + (f"; the oldest unfinished came {show.duration(oldest)} ago" if oldest is not None else "")


def _callbacks(found: dict[str, Any]) -> str:
    callbacks = found.get("callbacks") or {}
    taken = sum((callbacks.get("batches") or {}).get(kind, 0) for kind in ("generated", "validated"))
    return f"{callbacks.get('url')}, {taken} batches taken by HTTP since the start"


def _database(found: dict[str, Any]) -> str:
    database = found.get("database") or {}
    reason = f": {database['reason']}" if database.get("reason") else ""
    return f"{database.get('state')}{reason}, {show.size(database.get('bytes') or 0)}, {database.get('path')}"


def _poc_v2(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is of PoC v2, nothing where neither the relay nor the watch is set."""
    if (relay := found.get("relay")) is not None:
        away = f"; the api container is away: {relay['away']['reason']}" if relay.get("away") else ""
        counts = relay.get("counts") or {}
        yield (
            "relay",
            f"{counts.get('kept', 0)} callbacks kept, {relay.get('waiting')} wait, {relay.get('unsettled')} unsettled, "
            f"{relay.get('held_count')} held, {counts.get('late', 0)} late, {show.size(relay.get('bytes') or 0)}{away}",
        )
    if (watch := found.get("poc_v2_watch")) is not None:
        stages = watch.get("stages") or []
        newest = [stage for stage in stages if stage["height"] == stages[0]["height"]]
        told = [f"{stage['model']}: {_stored(stage)}" for stage in newest]
        where = f"stage {stages[0]['height']} ({stages[0]['kind']})" if stages else "no stage yet"
        yield "PoC v2", "; ".join([f"{watch.get('phase')} at block {watch.get('height')}, {where}", *told])


def _stored(stage: dict[str, Any]) -> str:
    growth = stage.get("growth_per_second")
    return f"stored {show.cell(stage.get('stored'))}, committed {show.cell(stage.get('committed'))}" + (
        f", {growth:g} a second" if growth is not None else ""
    )


def _standings(found: dict[str, Any]) -> dict[str, Any]:
    return show.field(found, "chain", "poc", "nodes") or {}


def nodes_table(
    nodes: list[tuple[dict[str, Any] | None, dict[str, Any]]],
    now: float,
    *,
    standings: dict[str, Any] | None = None,
) -> RenderableType:
    """Return a row for each node: what it does, its WebSocket, its batches; ``nodes`` are configuration and state."""
    rows = []
    for _config, state in nodes:
        websocket, batches = state.get("websocket") or {}, state.get("batches") or {}
        rows.append(
            (
                state.get("node_id"),
                state.get("enabled"),
                _doing(state, (standings or {}).get(str(state.get("node_id")))),
                websocket.get("state"),
                show.age(websocket.get("since"), now),
                batches.get("stored"),
                batches.get("by_http"),
                batches.get("not_stored"),
            )
        )
    headings = ("NODE", "ENABLED", "DOES", "WEBSOCKET", "FOR", "BATCHES", "HTTP", "ERRORS")
    return show.table(headings, rows, right=("BATCHES", "HTTP", "ERRORS"))


def _doing(state: dict[str, Any], standing: dict[str, Any] | None) -> str:
    if state.get("command"):
        return f"{state['command']} …"
    if standing is not None:
        return str(standing.get("current") or "not known")
    result = show.field(state, "last", "result") or {}
    return str(result.get("status") or "-")


@click.command(
    cls=ApiCommand,
    examples="""
    dapi epochs
    dapi epochs --limit 1 --nodes
    """,
)
@click.option("--limit", type=click.IntRange(1, 50), default=5, show_default=True, help="How many stages.")
@click.option("--nodes", "with_nodes", is_flag=True, help="A line for each node, too.")
@pass_session
def epochs(session: Session, limit: int, with_nodes: bool) -> None:
    """Show what became of the work in the latest stages."""
    found = session.api.get("/epochs", limit=limit)
    if session.is_json:
        session.print_json(found)
        return
    counts = ("generated", "confirmed", "failed", "expired", "validated")
    rows: list[tuple[object, ...]] = []
    for stage in found["epochs"]:
        nodes = stage["nodes"]
        total = [sum(node[name] for node in nodes.values()) for name in counts]
        kind = "confirmation" if stage["is_confirmation"] else f"epoch {stage['epoch_index']}"
        rows.append((stage["height"], kind, *total, stage.get("weight"), stage.get("effective_weight")))
        if with_nodes:
            rows += [
                (" ", name or "(no node)", *(node[each] for each in counts), node.get("weight"), None)
                for name, node in nodes.items()
            ]
    headings = ("STAGE", "OF", "MADE", "CONFIRMED", "FAILED", "EXPIRED", "VERDICTS", "WEIGHT", "PAID FOR")
    if not rows and not found.get("poc_v2"):
        click.echo("no stage is known yet: dapi learns of the first one when its PoC begins")
    if rows:
        show.print_all([show.table(headings, rows, right=(*headings[2:], "STAGE"))])
    if found.get("poc_v2"):
        show.print_all(_poc_v2_tables(found["poc_v2"], with_nodes=with_nodes))


def _poc_v2_tables(stages: list[dict[str, Any]], *, with_nodes: bool) -> Iterator[RenderableType]:
    """Yield a table of the stages for each model, whose name may be long."""
    from rich.text import Text

    headings = ("STAGE", "OF", "RELAYED", "STORED", "COMMITTED", "AT 1/3", "VOTES", "RESTARTS")
    for model in sorted({stage["model"] for stage in stages}):
        rows: list[tuple[object, ...]] = []
        for stage in stages:
            if stage["model"] != model:
                continue
            by_node, share, votes = stage["handed_on"], stage["share_at_a_third"], stage["votes"]
            rows.append(
                (
                    *(stage["height"], stage["kind"]),
                    sum(by_node.values()) if by_node is not None else None,
                    *(stage["stored_at_the_end"], stage["committed"]),
                    None if share is None else f"{share:.0%}",
                    None if votes is None else f"{votes} of {stage['participants']}",
                    stage["restarts"],
                )
            )
            if with_nodes:
                nothing = (None,) * 5
                rows += [(" ", name, count, *nothing) for name, count in (by_node or {}).items()]
        yield Text(f"PoC v2, {show.cell(model)}")
        yield show.table(headings, rows, right=("STAGE", *headings[2:]))


@click.command(
    "restart-advice",
    cls=ApiCommand,
    examples="""
    dapi restart-advice && systemctl restart dapi
    dapi restart-advice --container && docker compose restart api
    """,
)
@click.option("--container", "of_container", is_flag=True, help="Of the network's api container, in PoC v2.")
@pass_session
def restart_advice(session: Session, of_container: bool) -> None:
    """Say whether dapi may be restarted now: exit code 0 when it may, 3 when not.

    Where PoC v2 is watched, it says the same of the api container, to which the exit code goes with --container.
    """
    from rich.text import Text

    found = session.api.get("/restart")
    container = found.get("api_container")
    if of_container and container is None:
        raise CliError("dapi does not watch PoC v2, so it knows nothing of the api container: set poc_v2.watch")
    if session.is_json:
        session.print_json(found)
    else:
        advices = [("dapi", found)] if container is None else [("dapi", found), ("the api container", container)]
        if of_container:
            advices.reverse()
        show.print_all(Text(_restart_words(who, advice)) for who, advice in advices)
    if not (container if of_container else found)["safe"]:
        click.get_current_context().exit(ExitCode.NO)


def _restart_words(who: str, advice: dict[str, Any]) -> str:
    left = advice["blocks_left"]
    if advice["safe"]:
        return f"yes: {who} may be restarted now" + (f"; the next PoC starts in {left} blocks" if left else "")
    until = f"wait until block {advice['safe_at']}" if advice.get("safe_at") else "wait"
    loss = ", or lose what the nodes deliver meanwhile" if who == "dapi" else ""
    subject = "" if who == "dapi" else f"{who} may not be restarted: "
    return show.cell(f"no: {subject}{advice['reason']}; {until}{loss}")
