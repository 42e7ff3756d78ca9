"""Makes of the results what docs/evidence.md and README.md say of them.

It stands between ``<!-- begin abuse -->`` and ``<!-- end abuse -->``. ``python -m bench.abuse --write`` writes it
there; tests/unit/test_abuse.py tells when it is stale.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.abuse.results import LIMITS, Results, Row, Run, read
from bench.table import table

_ROOT = Path(__file__).parents[2]
_PLACE = re.compile(r"(<!-- begin abuse -->\n).*?(<!-- end abuse -->)", re.DOTALL)
_HEAD = ("beside them", "median ms", "p99 ms", "limit", "longest turn ms", "longest write ms", "MB more", "within")


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def cells(run: Run) -> list[str]:
    """Return what the table says of one run, but for its name and whether it is within the limits."""
    pairs = [(getattr(run.without, name), getattr(run.beside, name)) for name in ("median_ms", "p99_ms")]
    longest = [(getattr(run.without, name), getattr(run.beside, name)) for name in ("turn_ms", "write_ms")]
    limit = _number(LIMITS.p99_ms(run.without.p99_ms))
    before, after = ([f"{_number(one)} → {_number(other)}" for one, other in each] for each in (pairs, longest))
    return [*before, limit, *after, f"{run.grown_mb:.0f}"]


def verdict(row: Row) -> str:
    """Return whether an abuse is within the limits; of several runs, how many were."""
    word = "yes" if row.is_within() else "**no**"
    return word if len(row.runs) == 1 else f"{word} ({row.kept()} of {len(row.runs)})"


def evidence(results: Results) -> str:
    """Return the table of docs/evidence.md, and below it what it was measured with."""
    rows = [[row.abuse, *cells(row.shown()), verdict(row)] for row in results.rows]
    machine = results.machine
    load = f", with a load of {results.load[0]:g} before and {results.load[1]:g} after" if results.load else ""
    told = (
        f"{results.at}, version {results.commit}, {results.nodes} good nodes, {machine['cores']} cores of "
        f"{machine['cpu']}, {machine['python']}, in {results.seconds / 60:.0f} minutes{load}. Arrows lead from the "
        "time without the abuse to the time beside it."
    )
    return f"\n{table(_HEAD, rows)}\n{_filled(told)}\n"


def summary(results: Results) -> str:
    """Return what README.md says."""
    rows = results.rows
    broken = [row.abuse for row in rows if not row.is_within()]
    slowest = max((row.shown().beside.p99_ms or float("inf"), row.abuse) for row in rows)
    most, who = max((row.shown().grown_mb, row.abuse) for row in rows)
    but = f", but not beside {_and(broken)}" if broken else ""
    mostly = [row.abuse for row in rows if row.is_within() and row.kept() < len(row.runs)]
    most_runs = f" (beside {_and(mostly)} in two of three runs)" if mostly else ""
    told = (
        f"One broken or hostile peer costs the others little: beside {len(rows) - len(broken)} of {len(rows)} kinds of "
        "abuse, 99 of 100 messages of good nodes are acknowledged in twice the time at most, or in 20 ms, and memory "
        f"grows by 100 MB at most{most_runs}{but}. The slowest 99th percentile was {slowest[0]:.1f} ms, "
        f"beside {slowest[1]}; the most memory {most:.0f} MB, beside {who} ([each of them](docs/evidence.md))."
    )
    return f"{_filled(told)}\n"


def _and(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


DOCUMENTS: dict[Path, Callable[[Results], str]] = {
    _ROOT / "docs" / "evidence.md": evidence,
    _ROOT / "README.md": summary,
}
"""Each document, with what makes its part."""


def written(text: str, part: str) -> str:
    """Return a document with this part in the place of the old one; raises ValueError where there is no such place."""
    text, places = _PLACE.subn(lambda match: match[1] + part + match[2], text)
    if places != 1:
        raise ValueError("a document has one place for what the abuses came to")
    return text


def write_documents() -> None:
    """Write into the documents what the last results came to."""
    results = read()
    for document, make in DOCUMENTS.items():
        document.write_text(written(document.read_text(encoding="utf-8"), make(results)), encoding="utf-8")
