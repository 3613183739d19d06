"""Test metrics of a probe beside those of its baselines and the paper's (Tables 2 and 3)."""

from typing import Any

from datamodules import ScoreRows
from probe.metrics import Estimate
from probe.results.paper import PAPER_MODEL, TABLE_2, TABLE_3, published
from probe.results.text_table import TextTable

BASELINES = {
    "static": "each head's training mean",
    "step": "its training mean at the step number",
    "repeat": "the last known scores again: of the step itself for later heads, else of the step before",
    "transition": "mean at the step number, given whether the head was dynamic when last known",
    "heads": "ridge regression from the last known scores of all heads and the step number",
    "ridge": "ridge regression from the hidden state",
}
"""Baselines of probes by name; all but the last have no hidden state."""
COMPARED = {"classifier": ("f1", "auprc"), "regressor": ("r2_variance_weighted", "top_overlap")}
"""Metrics whose paired differences from the baselines are shown."""
PROBE_TABLES = {"classifier": TABLE_2, "regressor": TABLE_3}
"""The paper's table of each probe, by the experiment's name."""


def probe_records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each metric of the probe and of each baseline, with its 95 % interval; a threshold has none.

    Then, with the baseline in the column `minus`, the paired differences of the probe from each baseline.
    """
    sizes = {name: results[name] for name in ("rows", "samples")}
    own = [
        {"kind": kind, "minus": "", "metric": metric, **_estimate(results[kind], metric).as_dict(), **sizes}
        for kind in _evaluated(results)
        for metric in _metrics(results)
    ]
    paired = [
        {"kind": "probe", "minus": kind, "metric": metric, **estimate, **sizes}
        for kind, metrics in results["differences"].items()
        for metric, estimate in metrics.items()
    ]
    return own + paired


def probe_table(experiment: str, results: dict[str, Any], rows: ScoreRows) -> TextTable:
    """Metrics of probe and baselines with their 95 % intervals, and the paper's row.

    Args:
        experiment: `classifier` or `regressor`.
        results: Of its test.
        rows: The data that it was tested on.

    """
    held_out = f"{results['rows']:,} held-out rows of {results['samples']} samples"
    title = f"{experiment.capitalize()} on {rows.test_path or rows.store_path}: {held_out}"
    kinds = _evaluated(results)
    names = [f"{kind} baseline" if kind in BASELINES else kind for kind in kinds]
    paper_column = f"paper, {PAPER_MODEL}"
    out = TextTable(title, ["", *names, paper_column], "; ".join(_notes(results, rows)), ["probe", paper_column])
    for metric in _metrics(results):
        paper = published(PROBE_TABLES[experiment], metric).get(PAPER_MODEL)
        cells = [_estimate(results[kind], metric).forms(4, 3, leading_zero=False) for kind in kinds]
        out.add_row(metric, *cells, "" if paper is None else f"{paper:.4f}")
    out.add_section()
    for metric in COMPARED[experiment]:
        gaps = [Estimate.of(results["differences"][kind][metric]).forms(4, 3, sign=True) for kind in kinds[1:]]
        out.add_row(f"{metric}, gain", "", *gaps, "")
    return out


def _evaluated(results: dict[str, Any]) -> list[str]:
    return ["probe", *(name for name in BASELINES if name in results)]


def _notes(results: dict[str, Any], rows: ScoreRows) -> list[str]:
    split = rows.split
    notes = [f"split by {split.by}, seed {split.seed}, offset {rows.offset}", "[95 % bootstrap interval over samples]"]
    notes.append("gain: paired difference, probe minus baseline")
    notes += [f"{kind}: {BASELINES[kind]}" for kind in _evaluated(results)[1:]]
    if "threshold" in results["probe"]:
        notes.append("decision threshold: highest F1 on the validation split")
    if "top" in results:
        notes.append(
            f"top_overlap, ndcg: of a step's top {results['top']} heads; rank_correlation: Spearman, all heads"
        )
    if results.get("unscored_rows"):
        notes.append(f"{results['unscored_rows']} rows without a score are left out")
    return notes


def _metrics(results: dict[str, Any]) -> list[str]:
    return [name for name in results["probe"] if name != "intervals"]


def _estimate(metrics: dict[str, Any], name: str) -> Estimate:
    return Estimate(metrics[name], *metrics["intervals"].get(name, (None, None)))
