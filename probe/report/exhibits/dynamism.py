"""Whether the heads change from step to step: Table 1, Figs. 1 and 5."""

from typing import Any

from probe.experiments.dynamism import FIGURES, PUBLISHED
from probe.report import EMPTY, Cell, Figure, TableView, View, axis, layout, measured, spread

NAMES = {
    "jaccard_static": "Jaccard with the static set; a step without heads counts 0",
    "jaccard_static_non_empty": "the same, such steps left out",
    "jaccard_adjacent": "Jaccard of adjacent steps; two empty sets left out",
    "jaccard_adjacent_non_empty": "the same, both holding heads",
    "jaccard_adjacent_empty_is_one": "the same, two empty sets counting 1",
    "entropy": "entropy over heads, nats",
    "heads_per_step": "heads a step, mean",
    "heads_per_step_sd": "heads a step, standard deviation",
    "heads_ever": "heads ever active",
    "steps_without": "share of steps without any",
}


def takes(record: dict[str, Any]) -> bool:
    """Results of `Dynamism`."""
    return bool(record["experiment"] == "dynamism")


def view(record: dict[str, Any]) -> View:
    """The table beside its shuffled baseline, heads over steps, and the map of frequencies."""
    figures = [_steps(record), _frequency(record)] if "example" in record else []
    return View([_table(record)], figures)


def _table(record: dict[str, Any]) -> TableView:
    paper = record["paper"]
    rows = []
    for name in FIGURES:
        digits = 0 if name == "heads_ever" else 3
        published = [models[name] for models in paper.values()] if name in PUBLISHED else []
        rows.append(
            (
                NAMES[name],
                [
                    measured(record["figures"]["dynamic"][name], digits, strong=name in PUBLISHED),
                    measured(record["figures"]["shuffled"][name], digits),
                    Cell(f"{paper['llama3.1-8b'][name]:.4f}") if published else EMPTY,
                    spread(published) if published else EMPTY,
                ],
            )
        )
    note = (
        f"Dynamic heads: {record['dynamic_heads']}. Static heads: the top {len(record['static_heads'])} of "
        f"{record['static_source']}. Shuffled: each head's activations permuted over the steps of its sample. "
        f"In brackets the 95 % bootstrap interval over samples."
    )
    return TableView(["here", "shuffled", "paper, llama3.1-8b", "paper, five models"], rows, note)


def _steps(record: dict[str, Any]) -> Figure:
    example, per_layer = record["example"], record["llm"]["heads"]
    names = [f"{head // per_layer}-{head % per_layer}" for head in example["heads"]]
    places = list(range(len(example["tokens"])))
    spec = {
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
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": [_shown(token) for token in example["tokens"]]}
    x = axis("generated token", tickangle=-90, tickfont={"size": 9, "family": "monospace"}, **ticks)
    return Figure(
        f"Heads over the steps of sample {example['sample']}: the {len(names)} that vary most",
        {"data": [spec], "layout": layout(x, axis("layer-head", autorange="reversed", type="category"), 380)},
        "Heatmap of scores, one row for each head and one column for each generated token",
    )


def _shown(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "↵").replace("<", "‹").replace(">", "›") or "∅"


def _frequency(record: dict[str, Any]) -> Figure:
    per_layer, frequency = record["llm"]["heads"], record["frequency"]
    grid = [frequency[first : first + per_layer] for first in range(0, len(frequency), per_layer)]
    heat = {
        "type": "heatmap",
        "z": grid,
        "zmin": 0,
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "share"}, "thickness": 12},
        "hovertemplate": "head %{y}-%{x}: scores at <b>%{z:.3f}</b> of the steps"
        f"<br>n = {record['steps']:,} steps of {record['samples']} samples<extra></extra>",
    }
    static = {
        "type": "scatter",
        "mode": "markers",
        "name": "static set",
        "x": [head % per_layer for head in record["static_heads"]],
        "y": [head // per_layer for head in record["static_heads"]],
        "marker": {"symbol": "square-open", "size": 11, "color": "#d55e00", "line": {"width": 2}},
        "hoverinfo": "skip",
    }
    return Figure(
        "How often each head scores",
        {"data": [heat, static], "layout": layout(axis("head"), axis("layer", autorange="reversed"), 420)},
        "Map of layer by head with the share of steps at which each head scores; the static set is framed",
    )
