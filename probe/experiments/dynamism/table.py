"""Table 1 of a score store: flat records for results.csv, and the table of the terminal."""

from collections.abc import Mapping
from typing import Any

from probe.experiments.dynamism.metrics import METRICS
from probe.metrics import Estimate
from probe.results import PAPER_MODEL, TABLE_1, TextTable, published

KINDS = ("dynamic", "shuffled")
"""The store itself, and its shuffled baseline."""
DIGITS = {"heads_per_step": 2, "heads_per_step_sd": 2, "heads_ever": 0}
"""Decimals of the metrics that are numbers of heads."""


def dynamism_records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each metric of the store and of its shuffled baseline, those of other static sizes last."""
    keys = {name: results[name] for name in ("samples", "steps", "seed")}
    return [
        {"heads": kind, "metric": metric, **estimate, **keys}
        for group in ("metrics", "static_size_metrics")
        for kind in KINDS
        for metric, estimate in results[group][kind].items()
    ]


def metric_text(name: str, estimate: Mapping[str, Any], heads: int) -> str:
    """A metric with its interval; the number of heads ever dynamic is given of all heads.

    >>> metric_text("heads_ever", {"value": 73.0}, heads=270), metric_text("entropy", {"value": 2.57}, heads=270)
    ('73 / 270', '2.5700')

    """
    return _forms(name, estimate, heads)[0]


def _forms(name: str, estimate: Mapping[str, Any], heads: int) -> tuple[str, ...]:
    """The same from the longest form to the shortest."""
    if name == "heads_ever":
        return (f"{estimate['value']:.0f} / {heads}",)
    digits = DIGITS.get(name, 4)
    return Estimate.of(estimate).forms(digits, min(digits, 3))


def paper_text(name: str) -> str:
    """The published value of `PAPER_MODEL`; empty where the paper has none.

    >>> paper_text("heads_ever"), paper_text("heads_per_step"), paper_text("steps_without")
    ('238 / 1024', '12.97', '')

    """
    value = published(TABLE_1, name).get(PAPER_MODEL)
    if value is None:
        return ""
    return metric_text(name, {"value": value}, int(TABLE_1[PAPER_MODEL]["heads"]))


def dynamism_table(results: dict[str, Any]) -> TextTable:
    """Metrics beside the shuffled baseline's and the paper's, then those of other sizes of the static set."""
    caption = (
        f"dynamic heads: {results['dynamic_heads']}; static heads: top {len(results['static_heads'])} of "
        f"{results['static_source']}; static_coverage: share of dynamic heads that are static; [95 % bootstrap "
        "interval over samples]; shuffled: each head's activations permuted over the steps of a sample"
    )
    caption += f"; {results['note']}" if results.get("note") else ""
    title = f"Dynamism of heads: {results['steps']:,} steps of {results['samples']} samples ({results['evaluation']})"
    paper = f"paper, {PAPER_MODEL}"
    out = TextTable(title, ["", *KINDS, paper], caption, important=(KINDS[0], paper))
    for group, metrics in (("metrics", METRICS), ("static_size_metrics", results["static_size_metrics"]["dynamic"])):
        for metric in metrics:
            cells = [_forms(metric, results[group][kind][metric], results["heads"]) for kind in KINDS]
            out.add_row(metric, *cells, paper_text(metric))
        out.add_section()
    return out
