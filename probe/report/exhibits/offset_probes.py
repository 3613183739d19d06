"""Claim 3 without linearity: probes of the heads of later steps, and of the heads that wake up until then."""

from typing import Any

from probe.models import METRIC_LABELS, PREDICTOR_STYLES
from probe.report import Cell, Plot, TableView, View, axis, layout, line, measured
from probe.results import PLOTTED_METRICS, PREDICTORS, WAKE_UP_METRICS

WAKING = "heads that wake up"


def view(record: dict[str, Any]) -> View:
    """Probes beside all baselines at each k: a table and a plot of each metric."""
    metrics, offsets = PLOTTED_METRICS[record["target"]], record["offsets"]
    waking = record.get("wake_ups") or []  # former results have none
    tables = [_table(offsets, metric, "", _note(record)) for metric in metrics]
    plots = [_plot(offsets, metric, "") for metric in metrics]
    if waking:
        tables += [_table(waking, metric, f", {WAKING}", _waking_note(record)) for metric in WAKE_UP_METRICS]
        plots += [_plot(waking, metric, f", {WAKING}") for metric in WAKE_UP_METRICS]
    return View(tables, plots)


def _note(record: dict[str, Any]) -> str:
    kinds = _kinds(record["offsets"])
    return (
        f"{record['samples']} held-out samples; 95 % bootstrap intervals over samples. "
        + "; ".join(f"{kind}: {PREDICTOR_STYLES[kind][0]}" for kind in kinds)
        + ". At k = 0 the heads of the step before take the place of the current ones. Columns with a minus: paired "
        "differences."
    )


def _waking_note(record: dict[str, Any]) -> str:
    return (
        f"{record['samples']} held-out samples. A head wakes up if it is dynamic k steps later and not now; all heads "
        "that are not dynamic now count. Thresholds: highest F1 on the validation split."
    )


def _kinds(offsets: list[dict[str, Any]]) -> list[str]:
    """Predictors that any offset has."""
    return [kind for kind in PREDICTORS if any(kind in offset for offset in offsets)]


def _table(offsets: list[dict[str, Any]], metric: str, of: str, note: str) -> TableView:
    kinds = _kinds(offsets)
    compared = [kind for kind in kinds if any(kind in offset.get("differences", {}) for offset in offsets)]
    rows = []
    for offset in offsets:
        cells = [measured(offset.get(kind, {}).get(metric), strong=kind == "probe") for kind in kinds]
        gaps = [measured(offset["differences"].get(kind, {}).get(metric)) for kind in compared]
        counts = [Cell(f"{offset[name]:,}") for name in ("rows", "pairs", "events") if name in offset]
        rows.append((f"k = {offset['k']}", [*cells, *gaps, *counts]))
    counted = [name for name in ("rows", "pairs", "events") if name in offsets[0]]
    label = METRIC_LABELS[metric] + of
    columns = [*(f"{label}: {kind}" for kind in kinds), *(f"probe − {kind}" for kind in compared), *counted]
    return TableView(columns, rows, note)


def _plot(offsets: list[dict[str, Any]], metric: str, of: str) -> Plot:
    traces: list[dict[str, Any]] = []
    for style, kind in enumerate(PREDICTORS):
        cells = [(offset["k"], offset[kind][metric]) for offset in offsets if kind in offset]
        if cells:
            traces += line(PREDICTOR_STYLES[kind][0], [k for k, _ in cells], [cell for _, cell in cells], style)
    spec = {"data": traces, "layout": layout(axis("offset k, steps"), axis(METRIC_LABELS[metric]))}
    title = f"{METRIC_LABELS[metric]} of probes against the offset{of}"
    return Plot(title, spec, "Lines against the offset k with 95 % intervals")
