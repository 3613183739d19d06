"""Plots of trained probes: predicted against true scores, and metrics against the offset."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from extract.heads import HeadGrid
from probe.metrics import most_varying

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTOR_STYLES = {
    "probe": ("probe of the hidden state", "#08519c", "-", "o"),
    "static": ("each head's training mean", "0.5", "--", "^"),
    "step": ("its mean at the step number", "#31a354", "--", "D"),
    "repeat": ("the current step's heads again", "#e6550d", ":", "v"),
    "transition": ("its mean at the step number, given its state now", "#756bb1", "-.", "P"),
    "heads": ("ridge: the current heads and the step number", "#c51b8a", "-", "s"),
}
"""Label, colour, line style and marker of the probe and its baselines."""
METRIC_LABELS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auprc": "AUPRC (average precision)",
    "r2_variance_weighted": "R², weighted by each head's variance",
    "top_overlap": "true top heads among the predicted",
}


def plot_scatter(
    predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"], grid: HeadGrid, panels: int = 6
) -> "Figure":
    """Scatter plots of predicted against true scores, one panel for each of the heads of highest variance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplots(2, panels // 2, sharex=True, sharey=True).flat
    for axis, head in zip(axes, most_varying(scores.numpy(force=True), panels), strict=False):
        known = scores[:, head].isfinite()
        _plot_head(axis, predicted[known, head], scores[known, head], grid.name(head))
    figure.supxlabel("true score (Eq. 2)")
    figure.supylabel("predicted score")
    return figure


def _plot_head(axis: "Axes", predicted: Float[Tensor, "row"], truth: Float[Tensor, "row"], name: str) -> None:
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)  # where predictions are exact
    axis.scatter(truth, predicted, s=5, alpha=0.35, linewidths=0)
    correlation = torch.corrcoef(torch.stack([truth, predicted.to(truth.dtype)]))[0, 1]
    axis.set_title(f"head {name}, r = {correlation:.2f}", fontsize=10)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.1, 1.1)


def plot_offsets(offsets: Sequence[Mapping[str, Any]], predictors: Sequence[str], metrics: Sequence[str]) -> "Figure":
    """Metrics against the offset k, one panel for each metric; bands are 95 % intervals over samples.

    Args:
        offsets: For each k the records `{"value", "low", "high"}` by predictor and metric (`OffsetProbes.results`).
        predictors: What is plotted: the probe and its baselines.
        metrics: Names of metrics, one panel each.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(metrics), 4.1), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(panels, metrics, strict=True):
        for predictor in predictors:
            records = {offset["k"]: offset[predictor][metric] for offset in offsets if predictor in offset}
            _plot_line(axis, records, predictor)
        axis.set_xlabel("offset k, steps")
        axis.set_ylabel(METRIC_LABELS[metric])
        axis.set_ylim(top=1.02)
        axis.grid(axis="y", color="0.92")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // 3), fontsize=9, frameon=False)
    return figure


def _plot_line(axis: "Axes", records: Mapping[int, Mapping[str, float]], predictor: str) -> None:
    label, colour, line, marker = PREDICTOR_STYLES[predictor]
    k = list(records)
    value, low, high = ([record[key] for record in records.values()] for key in ("value", "low", "high"))
    axis.plot(k, value, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
    axis.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
