"""Table 1 of a score store: flat records for results.csv, and the table of the terminal."""

from typing import Any

from rich.table import Table

from probe.experiments.dynamism.metrics import METRICS
from probe.metrics import Estimate
from probe.results import PAPER_MODEL, TABLE_1, published

KINDS = ("dynamic", "shuffled")
"""The store itself, and its shuffled baseline."""


def dynamism_records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each metric of the store and of its shuffled baseline."""
    keys = {name: results[name] for name in ("samples", "steps", "seed")}
    return [
        {"heads": kind, "metric": metric, **estimate, **keys}
        for kind in KINDS
        for metric, estimate in results["metrics"][kind].items()
    ]


def dynamism_table(results: dict[str, Any]) -> Table:
    """Metrics beside the shuffled baseline's and the paper's."""
    caption = (
        f"dynamic heads: {results['dynamic_heads']}; static heads: top {len(results['static_heads'])} of "
        f"{results['static_source']}; [95 % bootstrap interval over samples]; shuffled: each head's activations "
        "permuted over the steps of a sample"
    )
    title = f"Dynamism of heads: {results['steps']:,} steps of {results['samples']} samples ({results['evaluation']})"
    out = Table(title=title, caption=caption)
    for header in ("", "dynamic", "shuffled", f"paper, {PAPER_MODEL}"):
        out.add_column(header, justify="right" if header else "left", overflow="fold")
    for metric in METRICS:
        paper = published(TABLE_1, metric).get(PAPER_MODEL)
        cells = [Estimate.of(results["metrics"][kind][metric]).text(4, 3) for kind in KINDS]
        out.add_row(metric, *cells, "" if paper is None else f"{paper:.4f}")
    return out
