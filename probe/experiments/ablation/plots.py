"""Heatmaps over context length and depth (Figs. 2 and 6), and curves over k (Figs. 3 and 7)."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.experiments.ablation.comparison import TOP_K
from probe.experiments.ablation.conditions import NoAblation
from probe.experiments.ablation.heatmap_grid import HeatmapGrid
from probe.experiments.ablation.outcomes import Outcomes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LABELS = {
    "accuracy": "accuracy (share of prompts)",
    "rouge_l": "ROUGE-L (F measure)",
    "em": "exact match",
    "f1": "F1",
    "answered": "answers with the marker",
    "em_last": "exact match, else of the last sentence",
    "f1_last": "F1, else of the last sentence",
    "contains": "gold answer in the text",
    "em_forced": "exact match, else of a forced answer",
    "f1_forced": "F1, else of a forced answer",
}
PANELS = 4
"""Heatmaps side by side."""
GROUP_STYLES = {
    "all": ("all prompts", "#00449e", "-", "o"),
    "baseline_correct": ("correct without ablation", "#b8860b", "--", "s"),
}
"""Label, colour, line and marker of the curves over k."""


def plot_heatmaps(outcomes: Outcomes, grid: HeatmapGrid, metric: str, note: str) -> "Figure":
    """One heatmap for each condition; a cell shows its number of prompts and is blank without any.

    Args:
        outcomes: Of the run.
        grid: The cells.
        metric: What the colour shows, in [0, 1].
        note: Below the heatmaps.

    """
    from matplotlib.figure import Figure

    count = len(outcomes.conditions)
    columns, rows = min(count, PANELS), math.ceil(count / PANELS)
    lengths, depths = grid.axis("lengths"), grid.axis("depths")
    width, height = 0.9 + 0.42 * max(len(lengths), 5), 1.0 + 0.3 * max(len(depths), 5)
    size = (columns * width + 1.4, rows * height + 0.7 + 0.17 * note.count("\n"))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for unused in panels.flat[count:]:
        unused.set_visible(False)
    for axis, (condition, values) in zip(panels.flat, outcomes.values[metric].items(), strict=False):
        means, n = grid.means(outcomes.length, outcomes.depth, np.atleast_2d(values).mean(axis=0))
        image = _heatmap(axis, means, n, grid.fade)
        axis.set_title(f"ablated: {condition}", fontsize=9)
        axis.set_xticks(range(len(lengths)), [f"{value:g}" for value in lengths], rotation=90, fontsize=7)
        axis.set_yticks(range(len(depths)), [f"{value:g}" for value in depths], fontsize=7)
        axis.set_xlabel("context length (tokens)", fontsize=8)
        axis.set_ylabel("depth of the evidence (%)", fontsize=8)
    figure.colorbar(image, ax=panels, label=LABELS.get(metric, metric), pad=0.01)
    figure.suptitle(_heading(outcomes, grid), fontsize=9)
    figure.supxlabel(note, fontsize=7, x=0.01, ha="left")
    return figure


def _heading(outcomes: Outcomes, grid: HeatmapGrid) -> str:
    outside = int((grid.locate(outcomes.length, outcomes.depth)[0] < 0).sum())
    text = f"{len(outcomes)} prompts; number in a cell: its prompts"
    text += "; fainter: fewer prompts" if grid.fade else ""
    return text + (f"; {outside} prompts are outside of the grid" if outside else "")


def _heatmap(axis: "Axes", means: Any, count: Any, fade: bool) -> Any:
    alpha = 0.25 + 0.75 * count / max(count.max(), 1) if fade else np.ones_like(means)
    image = axis.imshow(means, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest", alpha=alpha)
    for row, column in np.argwhere(count > 0):
        dark = means[row, column] < 0.5 and alpha[row, column] > 0.5
        number, color = str(count[row, column]), "w" if dark else "k"
        axis.text(column, row, number, ha="center", va="center", fontsize=6, color=color)
    return image


def plot_sweep(metrics: dict[str, Any], outcomes: Outcomes, ks: list[int], static_top: int) -> "Figure":
    """Both task metrics and the compensated heads against k; other conditions as horizontal lines.

    Args:
        metrics: Of each group of prompts, by condition.
        outcomes: Of the run.
        ks: Numbers of ablated heads, 0 for none.
        static_top: Size of the static set of the compensated heads.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    names = [*outcomes.metrics[:2], "compensated_static"]
    panels = figure.subplots(1, len(names))
    for axis, name in zip(panels, names, strict=True):
        for group in GROUP_STYLES:
            _curve(axis, metrics[group], ks, name, group)
        _levels(axis, metrics["all"], name)
        axis.set_xlabel("dynamic heads ablated at each step, at most (k)", fontsize=8)
        axis.set_ylabel(_sweep_label(name, static_top), fontsize=8)
        axis.set_ylim(bottom=0, top=1.02 if name in LABELS else None)
        axis.grid(alpha=0.25)
    panels[0].legend(fontsize=7, title="prompts (band: 95 % interval)", title_fontsize=7)
    correct = int(outcomes.baseline_correct().sum())
    title = f"{len(outcomes)} prompts, {correct} answered correctly without ablation (k = 0)"
    figure.suptitle(title, fontsize=9)
    return figure


def _sweep_label(name: str, static_top: int) -> str:
    if name in LABELS:
        return LABELS[name]
    return f"compensated heads of the static top {static_top}\n(most in one step, mean over prompts)"


def _curve(axis: "Axes", estimates: Any, ks: list[int], name: str, group: str) -> None:
    cells = [estimates[f"{TOP_K}{k}" if k else NoAblation.name][name] for k in ks]
    values, low, high = (np.array([cell[key] for cell in cells], dtype=float) for key in ("value", "low", "high"))
    label, color, line, marker = GROUP_STYLES[group]
    label = f"{label} (n = {cells[0]['n']})"
    axis.plot(ks, values, linestyle=line, marker=marker, markersize=4, color=color, label=label)
    axis.fill_between(ks, low, high, color=color, alpha=0.15, linewidth=0)


def _levels(axis: "Axes", estimates: Any, name: str) -> None:
    """The conditions beside the sweep, each a dotted line with its name at the right."""
    others = [condition for condition in estimates if not condition.startswith(TOP_K) and condition != NoAblation.name]
    for place, condition in enumerate(others):
        level = estimates[condition][name]["value"]
        axis.axhline(level, color=str(0.25 + 0.5 * place / max(len(others), 1)), linewidth=1.2, linestyle=":")
        axis.annotate(condition, (1, level), xycoords=("axes fraction", "data"), fontsize=6, ha="right", va="bottom")
