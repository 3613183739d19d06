"""Table 1, Figs. 1 and 5: how the dynamic heads change from step to step."""

from typing import Any

from extract.heads import HeadGrid
from probe.experiments.dynamism import KINDS, METRICS, SIZE_METRICS, metric_text, paper_text
from probe.report import EMPTY, Cell, Plot, TableView, View, axis, layout, measured, spread
from probe.results import PAPER_MODEL, TABLE_1, published

NAMES = {
    "jaccard_static": "Jaccard index with the static set; 0 for a step without dynamic heads",
    "jaccard_static_non_empty": "the same, without such steps",
    "jaccard_adjacent": "Jaccard index of adjacent steps, without pairs of empty sets",
    "jaccard_adjacent_non_empty": "the same, both sets non-empty",
    "jaccard_adjacent_empty_is_one": "the same, two empty sets count 1",
    "entropy": "entropy over heads, nats",
    "heads_per_step": "dynamic heads per step, mean",
    "heads_per_step_sd": "dynamic heads per step, standard deviation",
    "heads_ever": "heads ever dynamic, of all",
    "steps_without": "share of steps without dynamic heads",
}
SIZE_NAMES = {
    "jaccard_static": NAMES["jaccard_static"],
    "jaccard_static_non_empty": NAMES["jaccard_static_non_empty"],
    "static_coverage": "share of the dynamic heads that are in the static set",
}


def view(record: dict[str, Any]) -> View:
    """The metrics beside the shuffled baseline, heads over steps, and how often each head is dynamic."""
    sizes = [_sizes(record)] if record.get("static_sizes") else []  # former results have none
    return View([_table(record), *sizes], [_steps(record), _frequency(record)])


def _table(record: dict[str, Any]) -> TableView:
    rows = []
    for metric in METRICS:
        paper = published(TABLE_1, metric)
        cells = [_cell(record, kind, metric, strong=kind == "dynamic" and bool(paper)) for kind in KINDS]
        rows.append((NAMES[metric], [*cells, *(_published(metric) if paper else [EMPTY, EMPTY])]))
    note = (
        f"Dynamic heads: {record['dynamic_heads']}. Static heads: the top {len(record['static_heads'])} of "
        f"{record['static_source']}. Shuffled: each head's activations permuted over the steps of its sample. "
        f"In brackets the 95 % bootstrap interval over samples."
    )
    return TableView([*KINDS, f"paper, {PAPER_MODEL}", "paper, five models"], rows, note)


def _cell(record: dict[str, Any], kind: str, metric: str, strong: bool) -> Cell:
    estimate = record["metrics"][kind][metric]
    if metric == "heads_ever":
        return Cell(metric_text(metric, estimate, len(record["frequency"])), strong=strong)
    return measured(estimate, 3, strong)


def _published(metric: str) -> list[Cell]:
    """The paper's value of one model, and its range; numbers of heads ever dynamic are of models of other sizes."""
    values = published(TABLE_1, metric)
    if metric == "heads_ever":
        shares = [value / TABLE_1[model]["heads"] for model, value in values.items()]
        return [Cell(paper_text(metric)), Cell(f"{min(shares):.0%} – {max(shares):.0%} of all")]
    return [Cell(paper_text(metric)), spread([*values.values()], digits=2 if metric.startswith("heads") else 4)]


def _sizes(record: dict[str, Any]) -> TableView:
    """Static sets of several sizes, a column each for the store and its shuffled baseline."""
    metrics = record["static_size_metrics"]
    rows = [
        (
            SIZE_NAMES[name],
            [measured(metrics[kind][f"{name}_top_{size}"]) for size in record["static_sizes"] for kind in KINDS],
        )
        for name in SIZE_METRICS
    ]
    columns = [f"static top {size}, {kind}" for size in record["static_sizes"] for kind in KINDS]
    note = "With n dynamic heads at a step the Jaccard index with a set of size s is at most n / s."
    return TableView(columns, rows, note)


def _grid(record: dict[str, Any]) -> HeadGrid:
    """Layers and heads; all heads in one layer where no LLM is recorded."""
    llm = record.get("llm") or {"layers": 1, "heads": len(record["frequency"])}
    return HeadGrid(llm["layers"], llm["heads"])


def _steps(record: dict[str, Any]) -> Plot:
    example = record["example"]
    names = [*map(_grid(record).name, example["heads"])]
    places = list(range(len(example["tokens"])))
    heat = {
        "type": "heatmap",
        "x": places,
        "y": names,
        "z": [list(row) for row in zip(*example["scores"], strict=True)],
        "customdata": [[repr(token) for token in example["tokens"]]] * len(names),
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "score"}, "thickness": 12},
        "hovertemplate": "head %{y}, step %{x}, token %{customdata}: <b>%{z}</b><extra></extra>",
    }
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": [_visible(token) for token in example["tokens"]]}
    x = axis("generated token", tickangle=-90, tickfont={"size": 9, "family": "monospace"}, **ticks)
    y = axis("layer-head", autorange="reversed", type="category")
    return Plot(
        f"Heads over the steps of sample {example['sample']}: the {len(names)} of highest variance",
        {"data": [heat], "layout": layout(x, y, 380)},
        "Heatmap of scores, one row for each head and one column for each generated token",
    )


def _visible(token: str) -> str:
    """A token's text with its spaces and breaks shown."""
    return token.replace(" ", "␣").replace("\n", "↵") or "∅"


def _frequency(record: dict[str, Any]) -> Plot:
    grid, frequency = _grid(record), record["frequency"]
    heat = {
        "type": "heatmap",
        "z": [[frequency[grid.flat(layer, head)] for head in range(grid.heads)] for layer in range(grid.layers)],
        "zmin": 0,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "share"}, "thickness": 12},
        "hovertemplate": "head %{y}-%{x}: dynamic at <b>%{z:.3f}</b> of the steps"
        f"<br>n = {record['steps']:,} steps of {record['samples']:,} samples<extra></extra>",
    }
    static = [*map(grid.layer_and_head, record["static_heads"])]
    frames = {
        "type": "scatter",
        "mode": "markers",
        "name": "static set",
        "x": [head for _, head in static],
        "y": [layer for layer, _ in static],
        "marker": {"symbol": "square-open", "size": 11, "color": "#d55e00", "line": {"width": 2}},
        "hoverinfo": "skip",
    }
    return Plot(
        "How often each head is dynamic",
        {"data": [heat, frames], "layout": layout(axis("head"), axis("layer", autorange="reversed"), 420)},
        "Map of layer by head with the share of steps at which each head is dynamic; the static set is framed",
    )
