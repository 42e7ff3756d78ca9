"""Makes the tables of docs/performance.md of the last results.

``python -m bench.table`` prints them; with ``--write`` they take the places of the old ones, which begin with
``<!-- table: NAME -->`` and end with ``<!-- end -->``. A table whose benchmark has not run stays as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import goals, results

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
_PLACE = re.compile(r"(<!-- table: ([a-z_0-9]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SIZES = ("20", "1000", "20000")
_NAMES = {
    "dapi": "**dapi**, on disk",
    "memory": "dapi, keeping nothing",
    "websockets": "`websockets`, msgspec",
    "picows": "`picows`, msgspec",
    "sink": "a socket, nothing decoded",
    "aiohttp": "`aiohttp`, msgspec",
    "go": "Go, SQLite",
    "go_memory": "Go, keeping nothing",
    "postgres": "PostgreSQL, raw bytes",
}
_NODES = (
    ("port_open_s", "start of the process until the callback port is open, s", "1"),
    ("port_open_with_one_node_s", "the same with one node, s", ""),
    ("registered_s", "until all nodes are registered, s", ""),
    ("poc_start_accepted_ms", "`poc/start` until its answer, ms", "at once"),
    ("poc_start_until_open_s", "`poc/start` until all WebSockets are open, s", ""),
    ("poc_start_cpu_ms_a_node", "CPU of that, ms a node", ""),
    ("restart_until_open_s", "common restart until all WebSockets are open, s", "10"),
    ("restart_cpu_ms_a_node", "CPU of that, ms a node", "1"),
    ("kb_a_registered_node", "memory of a node, kB", ""),
    ("kb_a_node", "memory of a node with its WebSocket, kB", "22"),
    ("idle_cpu_percent", "CPU while nothing happens, % of a core", "2"),
    ("status_ms", "`GET status`, ms", ""),
    ("status_cpu_ms", "CPU of that, ms", "100"),
    ("nodes_list_ms", "`GET nodes`, ms", ""),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Return a number as people read it."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(found: Mapping[str, float]) -> str:
    """Return a median with the lowest and the highest."""
    return f"{number(found['median'])} ({number(found['min'])}-{number(found['max'])})"


def _by_size(found: Mapping[str, Any], section: str, figure: Callable[[Mapping[str, Any]], str], first: str) -> str:
    """Return a table of a comparison: a line for each side, a column for each size."""
    rounds = found["rounds"][section]
    sizes = [size for size in _SIZES if size in rounds]
    sides = list(dict.fromkeys(side for size in sizes for side in rounds[size]))
    rows = [
        [_NAMES[side], *(figure(rounds[size][side]) if side in rounds[size] else "" for size in sizes)]
        for side in sides
    ]
    return table([first, *(f"{int(size):,} nonces" for size in sizes)], rows)


def rates(found: Mapping[str, Any], section: str) -> str:
    """Return the rates of a comparison, and dapi's beside each."""

    def figure(side: Mapping[str, Any]) -> str:
        ratio = f" · **{side['ratio']['median']:.2f}**" if "ratio" in side else ""
        return spread(side["rate"]) + ratio

    return _by_size(found, section, figure, "batches/s (lowest-highest) · dapi's rate over it")


def waits(found: Mapping[str, Any], section: str) -> str:
    """Return how long batches waited for their acks."""
    return _by_size(
        found,
        section,
        lambda side: f"{number(side['p50_ms']['median'])} / {spread(side['p99_ms'])}",
        "ack in ms: median / 99th percentile",
    )


def cpu(found: Mapping[str, Any], section: str) -> str:
    """Return what a batch costs the receiver, and how busy the two cores were."""
    return _by_size(
        found,
        section,
        lambda side: (
            f"{number(side['cpu_us']['median'])} ({number(side['first_thread_us']['median'])})"
            f" · {side['receiver_share']['median']:.0%}"
            f" · {side['sender_share']['median']:.0%}"
        ),
        "CPU of the receiver, µs a batch (first thread) · its core busy · the sender's",
    )


def steps(found: Mapping[str, Any]) -> str:
    """Return the microseconds of each step."""
    section = found["steps"]
    rows = [[name, *(number(section[size][name]["median"]) for size in _SIZES)] for name in section[_SIZES[0]]]
    return table(["µs a batch", *(f"{int(size):,} nonces" for size in _SIZES)], rows)


def nodes(found: Mapping[str, Any]) -> str:
    """Return what many nodes cost."""
    section = found["nodes"]
    rows = []
    for name, words, goal in _NODES:
        value = section[name]
        rows.append([words, spread(value) if isinstance(value, dict) else number(value), goal])
    return table([f"{section['nodes']:,} nodes", "measured", "goal at 10,000"], rows)


def reached(found: Mapping[str, Any]) -> str:
    """Return the goals, and which are reached."""
    verdicts = list(goals.verdicts(found))
    rows = []
    for goal in goals.GOALS:
        cells = []
        for size in _SIZES:
            verdict = next(each for each in verdicts if (each.beside, each.nonces) == (goal.beside, size))
            cells.append(_beside(verdict))
        rows.append([goal.beside, *cells])
    return table(["dapi's rate over that of (by CPU time)", *(f"{int(size):,} nonces" for size in _SIZES)], rows)


def _beside(verdict: goals.Verdict) -> str:
    if verdict.ratio is None:
        return verdict.words
    ratio, by_cpu = f"{verdict.ratio:.2f}", f" ({verdict.by_cpu:.2f})" if verdict.by_cpu is not None else ""
    return f"**{ratio}** ≥ {verdict.goal:g}{by_cpu}" if verdict.is_reached else f"{ratio} < {verdict.goal:g}{by_cpu}"


def signing(found: Mapping[str, Any]) -> str:
    """Return how long each step of a transaction holds the reactor's thread."""
    rows = [[name, *map(number, each.values())] for name, each in found["signing"].items()]
    return table(["20,000 nonces", "median, ms", "99th percentile, ms", "longest, ms"], rows)


def sending(found: Mapping[str, Any]) -> str:
    """Return how fast messages get into blocks."""
    rows = [
        [f"{int(size):,}", *map(number, (each["rate"], 1000 * each["thread_ms"], 1000 * each["signing_ms"]))]
        for size, each in found["outbox_to_block"].items()
    ]
    return table(["nonces a message", "messages/s", "reactor's thread, µs a message", "signing alone, µs"], rows)


def stage(found: Mapping[str, Any]) -> str:
    """Return what everybody's batches of a stage need."""
    rows = [
        [
            name,
            number(each["megabytes"] / each["seconds"]),
            number(each["memory_mb"]),
            number(each["longest_ms"]),
        ]
        for name, each in found["large_stage"].items()
    ]
    return table(["way, size of the answer", "MB/s", "highest memory, MB", "longest step, ms"], rows)


def relay(found: Mapping[str, Any]) -> str:
    """Return the figures of the relay, with their limits."""
    rows = [[name, number(each["measured"]), f"{each['limit']:g}"] for name, each in found["relay"].items()]
    return table(["50 senders and one body of a million artifacts", "measured", "limit"], rows)


def relay_nginx(found: Mapping[str, Any]) -> str:
    """Return how fast the relay is beside a proxy that keeps nothing."""
    section = found["relay_nginx"]
    rows = [
        [name, spread(each["rate"]), spread(each["own_ms"]), spread(each["all_ms"])]
        for name, each in section["sides"].items()
    ]
    ratio = ["**dapi over nginx**", number(section["ratio"]), "", number(section["by_cpu"])]
    head = ["bodies of 0.3 MB, 16 connections", "requests/s", "its CPU, ms a request", "CPU of all, ms a request"]
    return table(head, [*rows, ratio])


def scrape(found: Mapping[str, Any]) -> str:
    """Return what a scrape of the metrics takes."""
    section = found["scrape"]
    row = [f"{section['nodes']:,}", spread(section["scrape_ms"]), spread(section["longest_turn_ms"])]
    return table(["nodes", "a scrape, ms", "longest turn of the reactor meanwhile, ms"], [row])


def machine(found: Mapping[str, Any]) -> str:
    """Return what it was measured on."""
    each = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
    return f"{each['cpu']}, {each['cores']} cores, {each['kernel']}, {each['python']}; {versions}.\n"


def year(found: Mapping[str, Any]) -> str:
    """Return what a year of finished batches in the database costs."""
    section = found["year"]
    rows = [
        [
            f"intake of {int(nonces):,} nonces: rate beside an empty database (by CPU time)",
            f"{line['ratio']['rate']:.2f} ({line['ratio']['cpu']:.2f})",
            "0.95",
        ]
        for nonces, line in section["intake"].items()
    ]
    rows += [
        ["start until the first status, s", number(section["start_seconds"]), "2"],
        ["slowest list, ms", number(section["list_ms"]), "100"],
        ["a step of the retention, ms: median, longest", _pair(section["retention"], "median_ms", "max_ms"), ""],
    ]
    return table([f"{section['rows']:,} rows, {section['megabytes']} MB", "measured", "goal"], rows)


def _pair(found: Mapping[str, float], first: str, second: str) -> str:
    return f"{number(found[first])}, {number(found[second])}"


def _of(section: str, make: Callable[[Mapping[str, Any], str], str]) -> tuple[str, Callable[[Mapping[str, Any]], str]]:
    return section, lambda found: make(found, section)


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "machine": ("machine", machine),
    "goals": ("ratios", reached),
    "intake": _of("intake", rates),
    "intake_cpu": _of("intake", cpu),
    "intake_waits": _of("intake", waits),
    "one": _of("intake_1", rates),
    "one_waits": _of("intake_1", waits),
    "many": _of("intake_256", rates),
    "many_waits": _of("intake_256", waits),
    "http": _of("http", rates),
    "http_cpu": _of("http", cpu),
    "go": _of("go", rates),
    "go_cpu": _of("go", cpu),
    "go_one": _of("go_1", rates),
    "steps": ("steps", steps),
    "nodes": ("nodes", nodes),
    "signing": ("signing", signing),
    "sending": ("outbox_to_block", sending),
    "stage": ("large_stage", stage),
    "year": ("year", year),
    "relay": ("relay", relay),
    "relay_nginx": ("relay_nginx", relay_nginx),
    "scrape": ("scrape", scrape),
}
"""The tables by name, each with the section of the results that it is made of."""


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables that these results have, by name, each with a line that says when it was measured."""
    made = {}
    for name, (section, make) in TABLES.items():
        if section in found:
            made[name] = f"\n{make(found)}{_when(found.get('measured', {}).get(section))}\n"
    return made


def _when(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return ""
    begin, end = measured["load"]
    took = f"in {measured['seconds']:.0f} s, with a load of {begin:g} before and {end:g} after"
    return f"\n{measured['at']}, version {measured['commit']}, {took}.\n"


def written(text: str, made: Mapping[str, str]) -> str:
    """Return a document with these tables in the places of the old ones."""

    def replaced(match: re.Match[str]) -> str:
        name = match[2]
        return match[1] + made[name] + match[3] if name in made else match[0]

    return _PLACE.sub(replaced, text)


def main() -> None:
    """Print the tables, or write them into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")
    made = tables(results.read())
    if parser.parse_args().write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        for name, text in made.items():
            print(f"== {name}\n{text}")


if __name__ == "__main__":
    main()
