"""Make the reference of the metrics for the documents."""

from __future__ import annotations

from dapi.server.metric_families import families
from tests.metric_samples import whole_snapshot


def reference() -> str:
    """Return the document in Markdown: each metric with its type, its labels and its meaning."""
    lines = [
        "# Reference of the metrics",
        "",
        "What `GET /metrics` at the admin port answers, for Prometheus. Times are in seconds, sizes in bytes. Beside",
        "these are those of the process (`process_…`). `ops/` has alerts and a dashboard of them.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for family in families(whole_snapshot()):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        told = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return "\n".join(lines) + "\n"
