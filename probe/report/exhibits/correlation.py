"""Figs. 4 and 8: does the hidden state predict the heads of later steps? And the same by probes."""

from typing import Any

from probe.experiments.correlation import FIGURES, KINDS, TITLES
from probe.experiments.correlation import LINE_STYLES as KIND_NAMES
from probe.models import METRIC_LABELS, PLOTTED_METRICS, PREDICTOR_STYLES, PREDICTORS
from probe.report import EMPTY, Cell, Figure, TableView, View, axis, layout, line, measured


def takes(record: dict[str, Any]) -> bool:
    """Results of `Correlation`."""
    return bool(record["experiment"] == "correlation")


def view(record: dict[str, Any]) -> View:
    """Component 1 at each k, and all three figures drawn."""
    return View([_table(record)], [_figure(record, name) for name in FIGURES])


def _table(record: dict[str, Any]) -> TableView:
    paper = {int(k): value for k, value in record["paper_component_1"].items()}
    rows = []
    for offset in record["offsets"]:
        cells = [
            measured(offset.get(kind, {}).get(FIGURES[0]), strong=kind == "held_out")
            if not kind.startswith("null")
            else Cell(measured(offset.get(kind, {}).get(FIGURES[0])).text)
            for kind in KINDS
        ]
        published = Cell(f"{paper[offset['k']]:.3f}") if offset["k"] in paper else EMPTY
        pairs = f"{offset['pairs']['train']:,} / {offset['pairs']['evaluation']:,}"
        rows.append((f"k = {offset['k']}", [*cells, published, Cell(pairs), Cell(str(offset["components"]))]))
    samples = record["samples"]
    note = (
        f"Component 1. Fitted on {samples['train']} training samples, evaluated on {samples['evaluation']} others; in "
        f"brackets the 95 % jackknife interval over {record['groups']} groups of samples. Nulls: the scores of another "
        f"sample, mean of {record['permutations']} draws."
    )
    names = [KIND_NAMES[kind][0] for kind in KINDS]
    return TableView([*names, "paper, llama3.1-8b", "pairs fitted / evaluated", "components"], rows, note)


def _figure(record: dict[str, Any], name: str) -> Figure:
    traces: list[dict[str, Any]] = []
    for look, kind in enumerate(KINDS):
        cells = [(offset["k"], offset[kind][name]) for offset in record["offsets"] if offset.get(kind)]
        if cells:
            traces += line(KIND_NAMES[kind][0], [k for k, _ in cells], [cell for _, cell in cells], look)
    if name == FIGURES[0]:
        paper = record["paper_component_1"]
        published = [{"value": value} for value in paper.values()]
        traces += line("paper, llama3.1-8b", [int(k) for k in paper], published, 4)
    y = axis("canonical correlation", range=[-0.05, 1.05])
    title = f"Canonical correlation: {TITLES[name]}"
    spec = {"data": traces, "layout": layout(axis("offset k, steps"), y)}
    return Figure(title, spec, "Lines against the offset k with bands of 95 % intervals; nulls show the range of draws")


def takes_probes(record: dict[str, Any]) -> bool:
    """Results of `OffsetProbes`."""
    return bool(record["experiment"] == "offset_probes")


def view_probes(record: dict[str, Any]) -> View:
    """What probes tell of the heads k steps later."""
    names = PLOTTED_METRICS[record["target"]]
    rows = [
        (
            f"k = {offset['k']}",
            [
                *(
                    measured(offset.get(kind, {}).get(name), strong=kind == "probe")
                    for name in names
                    for kind in PREDICTORS
                ),
                Cell(f"{offset['rows']:,}"),
            ],
        )
        for offset in record["offsets"]
    ]
    note = (
        f"{record['samples']} held-out samples; 95 % bootstrap intervals over samples. static: each head's training "
        "mean; repeat: the current step's true scores, taken for those of k steps later."
    )
    columns = [f"{METRIC_LABELS[name]}: {kind}" for name in names for kind in PREDICTORS]
    return View([TableView([*columns, "rows"], rows, note)], [_probe_figure(record, name) for name in names])


def _probe_figure(record: dict[str, Any], name: str) -> Figure:
    traces: list[dict[str, Any]] = []
    for look, kind in enumerate(PREDICTORS):
        cells = [(offset["k"], offset[kind][name]) for offset in record["offsets"] if kind in offset]
        traces += line(PREDICTOR_STYLES[kind][0], [k for k, _ in cells], [cell for _, cell in cells], look)
    spec = {"data": traces, "layout": layout(axis("offset k, steps"), axis(METRIC_LABELS[name]))}
    return Figure(
        f"{METRIC_LABELS[name]} of probes against the offset", spec, "Lines against the offset k with 95 % intervals"
    )
