"""Results of probes of later steps as flat records, for results.csv, and as tables of the terminal."""

from typing import Any

from rich.console import Group

from extract.scores import Target
from probe.metrics import Estimate
from probe.results.text_table import TextTable

PREDICTORS = ("probe", "static", "step", "repeat", "transition", "heads")
"""What is evaluated at each k: the probe, and the baselines that have no hidden state (`probe.models.Baselines`)."""
PLOTTED_METRICS: dict[Target, tuple[str, ...]] = {
    "copy_paste": ("f1", "auprc"),
    "reasoning": ("r2_variance_weighted", "top_overlap"),
    "contribution": ("r2_variance_weighted", "top_overlap"),
}
"""Metrics of the table and the plot against k, by target."""
WAKE_UP_METRICS = ("precision", "recall", "f1", "auprc")
"""Metrics of the heads that wake up."""
EVENTS = {"scores": "offsets", "wake-ups": "wake_ups"}
"""What is predicted, and its key in the results."""


def offset_records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each event, k, predictor (`kind`) and metric; `minus` names the baseline of a paired difference."""
    return [
        {"predicted": event, "k": offset["k"], "kind": kind, "minus": minus, "metric": name, **cell, **_sizes(offset)}
        for event, key in EVENTS.items()
        for offset in results.get(key, ())
        for kind, minus, cells in _evaluated(offset)
        for name, cell in cells.items()
    ]


def _sizes(offset: dict[str, Any]) -> dict[str, Any]:
    return {name: offset.get(name) for name in ("rows", "pairs", "events")}


def _evaluated(offset: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Predictor, baseline of a difference, metrics."""
    own = [(kind, "", offset[kind]) for kind in PREDICTORS if kind in offset]
    return [*own, *(("probe", kind, cells) for kind, cells in offset.get("differences", {}).items())]


def offset_tables(results: dict[str, Any]) -> Group:
    """A table of each plotted metric, then of each metric of the heads that wake up."""
    target = results["target"]
    held_out = f"{results['samples']} held-out samples"
    tables = [
        _table(f"{metric} of probes of the scores k steps later ({target}): {held_out}", results["offsets"], metric)
        for metric in PLOTTED_METRICS[target]
    ]
    if waking := results.get("wake_ups"):
        title = "of heads that are dynamic k steps later and not now, among all that are not now:"
        tables += [_table(f"{metric} {title} {held_out}", waking, metric) for metric in WAKE_UP_METRICS]
    tables[-1].caption = (
        "[95 % bootstrap interval over samples]; static: each head's training mean; step: its mean at the step number; "
        "repeat: the current step's true scores (k = 0: the step before's); transition: mean at the step number, given "
        "whether the head is dynamic now (k = 0: at the step before); heads: ridge regression from the scores of all "
        "heads that repeat takes and the step number; last column: paired difference of the probe from heads"
    )
    return Group(*tables)


def _table(title: str, offsets: list[dict[str, Any]], metric: str) -> TextTable:
    counted = "events" if "events" in offsets[0] else "rows"
    gap = "probe - heads"
    out = TextTable(title, ["k", counted, *PREDICTORS, gap], important=("probe", gap, "heads", "static"))
    for offset in offsets:
        cells = [_cell(offset.get(kind), metric) for kind in PREDICTORS]
        difference = _cell(offset["differences"].get("heads"), metric, sign=True)
        out.add_row(str(offset["k"]), f"{offset[counted]:,}", *cells, difference)
    return out


def _cell(metrics: dict[str, dict[str, float]] | None, name: str, sign: bool = False) -> tuple[str, ...]:
    return Estimate.of(metrics[name]).forms(digits=3, interval_digits=2, sign=sign) if metrics else ("",)
