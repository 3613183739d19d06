"""Figs. 2, 3, 6 and 7: answers with heads ablated."""

from typing import Any

from probe.experiments.ablation import GROUPS, LABELS, TOP_K, reference_condition
from probe.metrics import Estimate
from probe.report import Cell, Plot, TableView, View, axis, layout, line, measured
from probe.report.exhibits.differences import differences
from probe.report.exhibits.horizontal import horizontal

GROUP_NAMES = dict(zip(GROUPS, ("all prompts", "prompts answered correctly without ablation"), strict=True))


def is_sweep(record: dict[str, Any]) -> bool:
    """Whether the run ablated the first k dynamic heads for several k (Figs. 3 and 7)."""
    return bool(_sweep(record))


def _sweep(record: dict[str, Any]) -> list[int]:
    """The numbers k of ablated heads, 0 first; empty without a sweep."""
    tops = [int(name.removeprefix(TOP_K)) for name in record["conditions"] if name.startswith(TOP_K)]
    return [0, *sorted(tops)] if tops else []


def view(record: dict[str, Any]) -> View:
    """All conditions as a table; curves over k, or heatmaps over length and depth."""
    every = list(dict.fromkeys(pair["metric"] for pair in record["pairs"]["all"]))
    metrics, others = every[:2], every[2:]
    tables = _tables(record, metrics) + (_tables(record, others) if others else [])
    if is_sweep(record):
        return View(tables, [_curve(record, name) for name in (*metrics, "compensated_static")])
    heatmaps = [one for metric in metrics for one in _heatmaps(record, metric)]
    return View(tables, [_bars(record, metrics[0]), *heatmaps])


def _label(metric: str) -> str:
    return LABELS.get(metric, metric).split(" (")[0]


def _tables(record: dict[str, Any], metrics: list[str]) -> list[TableView]:
    """Conditions, and their paired differences from the reference."""
    names = list(record["conditions"])
    labels = {metric: _label(metric) for metric in metrics}
    paired = differences(record["pairs"]["all"], reference_condition(names), names, labels, "prompts")
    return [_table(record, metrics), paired]


def _table(record: dict[str, Any], metrics: list[str]) -> TableView:
    rows = []
    for name, estimates in record["metrics"]["all"].items():
        cells = [
            Cell(f"{estimates['ablated']['value']:.2f}"),
            *(measured(estimates[metric], strong=metric == metrics[0]) for metric in metrics),
            measured(record["metrics"]["baseline_correct"][name][metrics[0]]),
            measured(estimates["compensated_static"], 2),
        ]
        rows.append((name, cells))
    names = [_label(metric) for metric in metrics]
    columns = ["heads per step", *names, f"{names[0]}, baseline correct", "compensated"]
    return TableView(columns, rows, _note(record))


def _note(record: dict[str, Any]) -> str:
    matched = record.get("matched_heads")  # missing in results of an earlier release
    number = f"Conditions are matched to {matched['average']:.2f} heads per step. " if matched else ""
    return (
        f"{record['prompts']} prompts, {record['baseline_correct']} answered correctly without ablation (baseline "
        f"correct); {record['operator']} operator, KV cache of the {record['keep']} pass. 95 % intervals: Wilson for "
        "shares, bootstrap over prompts, and over random sets, for others. compensated: static heads that score after "
        f"ablation and did not before, most in one step, mean over prompts. {number}The paper (llama3.1-8b): ablating "
        "dynamic heads takes accuracy to near 0, random heads do not."
    )


def _bars(record: dict[str, Any], metric: str) -> Plot:
    estimates = {name: cells[metric] for name, cells in record["metrics"]["all"].items()}
    bars = {"type": "bar", "orientation": "h", "marker": {"color": "var:--c1"}, **horizontal(estimates, "var:--ink")}
    label = LABELS.get(metric, metric)
    x, y = axis(label, range=[0, 1.02]), axis("", autorange="reversed")
    spec = {"data": [bars], "layout": layout(x, y, 110 + 34 * len(estimates))}
    return Plot(f"{label} by condition", spec, "Bars with 95 % intervals, one for each condition")


def _curve(record: dict[str, Any], name: str) -> Plot:
    ks = _sweep(record)
    traces: list[dict[str, Any]] = []
    for style, group in enumerate(GROUPS):
        cells = [record["metrics"][group][f"{TOP_K}{k}" if k else "none"][name] for k in ks]
        traces += line(f"{GROUP_NAMES[group]} (n = {cells[0]['n']})", ks, cells, style)
    for style, condition in enumerate(record["conditions"]):
        if condition != "none" and not condition.startswith(TOP_K):
            level = record["metrics"]["all"][condition][name]["value"]
            traces += line(condition, [ks[0], ks[-1]], [{"value": level}] * 2, style + 2)
    label = LABELS.get(name, "compensated heads of the static set")
    spec = {"data": traces, "layout": layout(axis("dynamic heads ablated at each step, at most (k)"), axis(label))}
    return Plot(f"{label} against k", spec, "Lines against the number of ablated heads with 95 % intervals")


def _heatmaps(record: dict[str, Any], metric: str) -> list[Plot]:
    """A small heatmap for each condition; none where the run had no grid."""
    conditions = record.get("heatmaps", {}).get("metrics", {}).get(metric, {})
    x = axis("context length, tokens", type="category")
    y = axis("depth, %", type="category", autorange="reversed")
    plan = layout(x, y, 250)
    group = f"{LABELS.get(metric, metric)} by context length and depth of the evidence; number in a cell: its prompts"
    return [
        Plot(
            f"ablated: {name}",
            {"data": [_heatmap(record["heatmaps"], cells)], "layout": plan},
            f"Heatmap of {metric}",
            group,
        )
        for name, cells in conditions.items()
    ]


def _heatmap(grid: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    lengths, depths = ([f"{value:g}" for value in grid[name]] for name in ("lengths", "depths"))
    z: list[list[Any]] = [[None] * len(lengths) for _ in depths]
    text, hover = ([[""] * len(lengths) for _ in depths] for _ in range(2))
    for cell in cells:
        row, column = cell["depth"], cell["length"]
        z[row][column], text[row][column] = cell["value"], str(cell["n"])
        hover[row][column] = f"{Estimate.of(cell).interval_text(3)} n = {cell['n']}"
    return {
        "type": "heatmap",
        "x": lengths,
        "y": depths,
        "z": z,
        "text": text,
        "texttemplate": "%{text}",
        "customdata": hover,
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 10, "tickvals": [0, 0.5, 1]},
        "hoverongaps": False,
        "hovertemplate": "length %{x}, depth %{y} %: <b>%{z:.3f}</b> %{customdata}<extra></extra>",
    }
