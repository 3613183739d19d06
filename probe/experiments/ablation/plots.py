"""Heatmaps over length and depth (Figs. 2 and 6), and curves over the number of ablated heads (Figs. 3 and 7)."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probe.experiments.ablation.conditions import NoAblation
from probe.experiments.ablation.heatmap_grid import Cells
from probe.experiments.ablation.outcomes import Outcomes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LABELS = {"accuracy": "accuracy (share of prompts)", "rouge_l": "ROUGE-L (F measure)", "em": "exact match", "f1": "F1"}
COLUMNS = 4


def cell_means(outcomes: Outcomes, cells: Cells, values: NDArray[np.float64]) -> tuple[Any, Any]:
    """Mean of a value in each cell, NaN where no prompt is, and the number of prompts, [depth, length]."""
    rows, columns = cells.place("depths", outcomes.depth), cells.place("lengths", outcomes.length)
    inside = (rows >= 0) & (columns >= 0)
    shape = (len(cells.axis("depths")), len(cells.axis("lengths")))
    total, count = np.zeros(shape), np.zeros(shape, dtype=int)
    np.add.at(total, (rows[inside], columns[inside]), values[inside])
    np.add.at(count, (rows[inside], columns[inside]), 1)
    return np.where(count, total / np.maximum(count, 1), np.nan), count


def plot_grid(outcomes: Outcomes, cells: Cells, metric: str, note: str) -> "Figure":
    """One heatmap for each condition; each cell with its n, blank without any; the paired comparison below."""
    from matplotlib.figure import Figure

    count = len(outcomes.conditions)
    columns, rows = min(count, COLUMNS), math.ceil(count / COLUMNS)
    lengths, depths = cells.axis("lengths"), cells.axis("depths")
    width, height = 0.9 + 0.42 * max(len(lengths), 5), 1.0 + 0.3 * max(len(depths), 5)
    size = (columns * width + 1.4, rows * height + 0.7 + 0.17 * note.count("\n"))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axis in enumerate(grid.flat):
        if place >= count:
            axis.set_visible(False)
            continue
        means, n = cell_means(outcomes, cells, outcomes.values[metric][place])
        image = _heatmap(axis, means, n, cells.fade)
        axis.set_title(f"ablated: {outcomes.conditions[place]}", fontsize=9)
        axis.set_xticks(range(len(lengths)), [f"{value:g}" for value in lengths], rotation=90, fontsize=7)
        axis.set_yticks(range(len(depths)), [f"{value:g}" for value in depths], fontsize=7)
        axis.set_xlabel("context length (tokens)", fontsize=8)
        axis.set_ylabel("depth of the evidence (%)", fontsize=8)
    figure.colorbar(image, ax=grid, label=LABELS.get(metric, metric), pad=0.01)
    figure.suptitle(_heading(outcomes, cells), fontsize=9)
    figure.supxlabel(note, fontsize=7, x=0.01, ha="left")
    return figure


def _heading(outcomes: Outcomes, cells: Cells) -> str:
    rows, columns = cells.place("depths", outcomes.depth), cells.place("lengths", outcomes.length)
    beyond = int(((rows < 0) | (columns < 0)).sum())
    text = f"{len(outcomes)} prompts; number in a cell: its prompts"
    text += "; fainter: fewer prompts" if cells.fade else ""
    return text + (f"; {beyond} prompts lie beyond the cells" if beyond else "")


def _heatmap(axis: "Axes", means: Any, count: Any, fade: bool) -> Any:
    alpha = 0.25 + 0.75 * count / max(count.max(), 1) if fade else np.ones_like(means)
    image = axis.imshow(means, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest", alpha=alpha)
    for row, column in np.argwhere(count > 0):
        dark = means[row, column] < 0.5 and alpha[row, column] > 0.5
        axis.text(
            *(column, row, str(count[row, column])), ha="center", va="center", fontsize=6, color="w" if dark else "k"
        )
    return image


def plot_sweep(figures: dict[str, Any], outcomes: Outcomes, ks: list[int], static_top: int) -> "Figure":
    """Both metrics and the compensated heads against k; other conditions as level lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = [*outcomes.metrics[:2], "compensated_static"]
    axes = figure.subplots(1, len(panels))
    for axis, name in zip(axes, panels, strict=True):
        for group, style, marker in (("all", "-", "o"), ("solved", "--", "s")):
            _curve(axis, figures[group], ks, name, (style, marker), group)
        others = [c for c in outcomes.conditions if not c.startswith("dynamic top") and c != NoAblation.name]
        for place, condition in enumerate(others):
            level = figures["all"][condition][name]["value"]
            axis.axhline(level, color=str(0.25 + 0.5 * place / max(len(others), 1)), linewidth=1.2, linestyle=":")
            axis.annotate(
                condition, (1, level), xycoords=("axes fraction", "data"), fontsize=6, ha="right", va="bottom"
            )
        axis.set_xlabel("dynamic heads ablated at each step, at most (k)", fontsize=8)
        axis.set_ylabel(_sweep_label(name, static_top), fontsize=8)
        axis.set_ylim(bottom=0, top=1.02 if name in LABELS else None)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=7, title="prompts (band: 95 %)", title_fontsize=7)
    solved = int(outcomes.solved().sum())
    figure.suptitle(f"{len(outcomes)} prompts, {solved} solved by the unmasked model; k = 0: unmasked", fontsize=9)
    return figure


def _sweep_label(name: str, static_top: int) -> str:
    if name in LABELS:
        return LABELS[name]
    return f"compensated heads of the static top {static_top}\n(most at a step, mean over prompts)"


def _curve(axis: "Axes", figures: Any, ks: list[int], name: str, look: tuple[str, str], group: str) -> None:
    cells = [figures[f"dynamic top {k}" if k else NoAblation.name][name] for k in ks]
    values, low, high = (np.array([cell[key] for cell in cells]) for key in ("value", "low", "high"))
    color = "#00449e" if group == "all" else "#b8860b"
    label = f"{group} (n = {cells[0]['n']})"
    axis.plot(ks, values, look[0], marker=look[1], markersize=4, color=color, label=label)
    axis.fill_between(ks, low, high, color=color, alpha=0.15, linewidth=0)
