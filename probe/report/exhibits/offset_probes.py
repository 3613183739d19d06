"""Claim 3 without linearity: probes of the heads of later steps."""

from typing import Any

from probe.models import METRIC_LABELS, PLOTTED_METRICS, PREDICTOR_STYLES, PREDICTORS
from probe.report import Cell, Plot, TableView, View, axis, layout, line, measured


def view(record: dict[str, Any]) -> View:
    """Probes beside both baselines at each k."""
    metrics = PLOTTED_METRICS[record["target"]]
    rows = []
    for offset in record["offsets"]:
        cells = [
            measured(offset.get(kind, {}).get(metric), strong=kind == "probe")
            for metric in metrics
            for kind in PREDICTORS
        ]
        rows.append((f"k = {offset['k']}", [*cells, Cell(f"{offset['rows']:,}")]))
    note = (
        f"{record['samples']} held-out samples; 95 % bootstrap intervals over samples. static: each head's training "
        "mean; repeat: the true scores of the current step as prediction for k steps later."
    )
    columns = [f"{METRIC_LABELS[metric]}: {kind}" for metric in metrics for kind in PREDICTORS]
    return View([TableView([*columns, "rows"], rows, note)], [_plot(record, metric) for metric in metrics])


def _plot(record: dict[str, Any], metric: str) -> Plot:
    traces: list[dict[str, Any]] = []
    for style, kind in enumerate(PREDICTORS):
        cells = [(offset["k"], offset[kind][metric]) for offset in record["offsets"] if kind in offset]
        traces += line(PREDICTOR_STYLES[kind][0], [k for k, _ in cells], [cell for _, cell in cells], style)
    spec = {"data": traces, "layout": layout(axis("offset k, steps"), axis(METRIC_LABELS[metric]))}
    return Plot(
        f"{METRIC_LABELS[metric]} of probes against the offset", spec, "Lines against the offset k with 95 % intervals"
    )
