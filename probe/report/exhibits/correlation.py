"""Figs. 4 and 8: canonical correlation of hidden states and the scores of later steps."""

from typing import Any

from probe.experiments.correlation import KINDS, LINE_STYLES, METRICS, TITLES
from probe.report import EMPTY, Cell, Plot, TableView, View, axis, layout, line, measured
from probe.results import COMPONENT_1, PAPER_MODEL

NAMES = {kind: style[0] for kind, style in LINE_STYLES.items()}


def view(record: dict[str, Any]) -> View:
    """Component 1 at each k as a table, and a plot of each metric."""
    return View([_table(record)], [_plot(record, metric) for metric in METRICS])


def _table(record: dict[str, Any]) -> TableView:
    paper = COMPONENT_1[record["target"]]
    rows = []
    for offset in record["offsets"]:
        k, pairs = offset["k"], offset["pairs"]
        cells = [_cell(offset.get(kind, {}).get(METRICS[0]), kind) for kind in KINDS]
        published = Cell(f"{paper[k]:.3f}") if k < len(paper) else EMPTY
        counts = [Cell(f"{pairs['train']:,} / {pairs['evaluation']:,}"), Cell(str(offset["components"]))]
        rows.append((f"k = {k}", [*cells, published, *counts]))
    samples = record["samples"]
    note = (
        f"Component 1. Fitted on {samples['train']} training samples, evaluated on {samples['evaluation']} others; in "
        f"brackets the 95 % jackknife interval over {record['groups']} groups of samples. The step number alone: "
        "one-hot in place of the hidden state. Within a step: deviations from the training means at the step number. "
        f"Nulls: the scores of another sample, mean of {record['permutations']} permutations."
    )
    columns = [*(NAMES[kind] for kind in KINDS), f"paper, {PAPER_MODEL}", "pairs fitted / evaluated", "components"]
    return TableView(columns, rows, note)


def _cell(estimate: dict[str, Any] | None, kind: str) -> Cell:
    """Nulls without their ranges, which the plots show."""
    cell = measured(estimate, strong=kind == "held_out")
    return Cell(cell.text) if kind.startswith("null") else cell


def _plot(record: dict[str, Any], metric: str) -> Plot:
    traces: list[dict[str, Any]] = []
    for style, kind in enumerate(KINDS):
        cells = [(offset["k"], offset[kind][metric]) for offset in record["offsets"] if offset.get(kind)]
        if cells:
            traces += line(NAMES[kind], [k for k, _ in cells], [cell for _, cell in cells], style)
    if metric == METRICS[0]:
        paper = COMPONENT_1[record["target"]]
        traces += line(f"paper, {PAPER_MODEL}", range(len(paper)), [{"value": value} for value in paper], len(KINDS))
    y = axis("canonical correlation", range=[-0.05, 1.05])
    spec = {"data": traces, "layout": layout(axis("offset k, steps"), y)}
    return Plot(
        f"Canonical correlation: {TITLES[metric]}",
        spec,
        "Lines against the offset k with bands of 95 % intervals; nulls show their range over permutations",
    )
