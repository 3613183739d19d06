"""Figs. 2, 3, 6 and 7: what the model still answers with heads ablated."""

from typing import Any

from probe.experiments.ablation import LABELS, pair_of, reference_condition
from probe.report import EMPTY, Cell, Figure, TableView, View, axis, layout, line, measured


def takes(record: dict[str, Any], target: str, sweep: bool) -> bool:
    """Results of `Ablation` by that score, with or without a sweep over k."""
    return bool(
        record["experiment"] == "ablation"
        and record["dynamic_heads"]["target"] == target
        and bool(_sweep(record)) == sweep
    )


def _sweep(record: dict[str, Any]) -> list[int]:
    """The numbers of heads that were ablated at most, 0 first."""
    tops = [int(name.removeprefix("dynamic top ")) for name in record["conditions"] if name.startswith("dynamic top ")]
    return [0, *sorted(tops)] if tops else []


def view(record: dict[str, Any]) -> View:
    """All conditions as a table; curves over k, or heatmaps over length and depth."""
    metrics = list(dict.fromkeys(pair["metric"] for pair in record["pairs"]["all"]))
    if _sweep(record):
        return View([_table(record, metrics)], [_curve(record, name) for name in (*metrics, "compensated_static")])
    maps = [one for metric in metrics for one in _maps(record, metric)]
    return View([_table(record, metrics)], [_bars(record, metrics[0]), *maps])


def _table(record: dict[str, Any], metrics: list[str]) -> TableView:
    reference = reference_condition(list(record["conditions"]))
    rows = []
    for name, figures in record["figures"]["all"].items():
        solved = record["figures"]["solved"][name]
        cells = [
            Cell(f"{figures['ablated']['value']:.2f}"),
            *(measured(figures[metric], strong=metric == metrics[0]) for metric in metrics),
            measured(solved[metrics[0]]),
            measured(figures["compensated_static"], 2),
            _against(record, name, reference, metrics[0]),
        ]
        rows.append((name, cells))
    note = (
        f"{record['prompts']} prompts, {record['solved']} solved without ablation; {record['operator']} operator, "
        f"{record['keep']} keys kept. 95 % intervals: Wilson for shares, bootstrap over prompts for others; p: exact "
        "McNemar test on the same prompts. compensated: static heads that score after ablation and did not before, "
        "most at a step, mean over prompts. The paper (llama3.1-8b): dynamic takes accuracy to near 0, random does not."
    )
    names = [LABELS.get(metric, metric).split(" (")[0] for metric in metrics]
    columns = ["heads a step", *names, f"{names[0]}, solved", "compensated", f"against {reference}"]
    return TableView(columns, rows, note)


def _against(record: dict[str, Any], name: str, reference: str, metric: str) -> Cell:
    if name == reference:
        return EMPTY
    pair = pair_of(record["pairs"]["all"], name, reference, metric)
    p = "" if pair["p"] is None else f", p {pair['p']:.1g}"
    return Cell(f"{pair['difference']:+.3f}", f"won {pair['more']}, lost {pair['less']}{p}")


def _bars(record: dict[str, Any], metric: str) -> Figure:
    figures = record["figures"]["all"]
    values = [cells[metric] for cells in figures.values()]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": list(figures),
        "x": [cell["value"] for cell in values],
        "marker": {"color": "var:--c1"},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [cell["high"] - cell["value"] for cell in values],
            "arrayminus": [cell["value"] - cell["low"] for cell in values],
            "color": "var:--ink",
        },
        "customdata": [[cell["low"], cell["high"], cell["n"]] for cell in values],
        "hovertemplate": "%{y}: <b>%{x:.3f}</b> [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "n = %{customdata[2]}<extra></extra>",
    }
    height = 110 + 34 * len(values)
    x, y = axis(LABELS.get(metric, metric), range=[0, 1.02]), axis("", autorange="reversed")
    spec = {"data": [bars], "layout": layout(x, y, height)}
    return Figure(f"{LABELS.get(metric, metric)} by what is ablated", spec, "Bars with 95 % intervals")


def _curve(record: dict[str, Any], name: str) -> Figure:
    ks = _sweep(record)
    traces: list[dict[str, Any]] = []
    for look, group in enumerate(("all", "solved")):
        cells = [record["figures"][group][f"dynamic top {k}" if k else "none"][name] for k in ks]
        traces += line(f"{group} prompts (n = {cells[0]['n']})", ks, cells, look)
    for look, condition in enumerate(record["conditions"]):
        if condition != "none" and not condition.startswith("dynamic top"):
            level = record["figures"]["all"][condition][name]["value"]
            traces += line(condition, [ks[0], ks[-1]], [{"value": level}] * 2, look + 2)
    label = LABELS.get(name, "compensated heads of the static set")
    spec = {"data": traces, "layout": layout(axis("dynamic heads ablated at each step, at most (k)"), axis(label))}
    return Figure(f"{label} against k", spec, "Lines against the number of ablated heads with 95 % intervals")


def _maps(record: dict[str, Any], metric: str) -> list[Figure]:
    """A small heatmap for each condition; none where the run had no cells."""
    grids = record.get("cells", {}).get("metrics", {}).get(metric, {})
    x = axis("context length, tokens", type="category")
    y = axis("depth, %", type="category", autorange="reversed")
    plan = layout(x, y, 250)
    group = f"{LABELS.get(metric, metric)} by context length and depth of the evidence; number in a cell: its prompts"
    return [
        Figure(
            f"ablated: {name}", {"data": [_map(record["cells"], found)], "layout": plan}, f"Heatmap of {metric}", group
        )
        for name, found in grids.items()
    ]


def _map(cells: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    lengths, depths = ([f"{value:g}" for value in cells[name]] for name in ("lengths", "depths"))
    z: list[list[Any]] = [[None] * len(lengths) for _ in depths]
    text, hover = ([[""] * len(lengths) for _ in depths] for _ in range(2))
    for cell in found:
        row, column = cell["depth"], cell["length"]
        z[row][column], text[row][column] = cell["value"], str(cell["n"])
        hover[row][column] = f"[{cell['low']:.3f}, {cell['high']:.3f}], n = {cell['n']}"
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
