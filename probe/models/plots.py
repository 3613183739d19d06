"""Plots of trained probes."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_scatter(
    predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"], heads_per_layer: int, panels: int = 6
) -> "Figure":
    """One panel a head, of highest variance first, named layer-head; on the diagonal the prediction is right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplots(2, panels // 2, sharex=True, sharey=True).flat
    for axis, head in zip(axes, most_varying(scores, panels), strict=False):
        known = scores[:, head].isfinite()
        truth, guess = scores[known, head], predicted[known, head]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axis.scatter(truth, guess, s=5, alpha=0.35, linewidths=0)
        correlation = torch.corrcoef(torch.stack([truth, guess.to(truth.dtype)]))[0, 1]
        axis.set_title(f"head {head // heads_per_layer}-{head % heads_per_layer}, r = {correlation:.2f}", fontsize=10)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.1, 1.1)
    figure.supxlabel("true score (Eq. 2)")
    figure.supylabel("predicted score")
    return figure


def most_varying(scores: Float[Tensor, "row head"], count: int) -> list[int]:
    """Heads of highest variance over rows, a missing score left out."""
    known = scores.isfinite()
    number = known.sum(0).clamp(min=1)
    mean = torch.where(known, scores, 0.0).sum(0) / number
    variance = torch.where(known, (scores - mean).square(), 0.0).sum(0) / number
    order: list[int] = variance.argsort(descending=True, stable=True)[:count].tolist()
    return order


LINE_STYLES = {
    "probe": ("probe of the hidden state", "#08519c", "-", "o"),
    "static": ("static: each head's training mean", "0.5", "--", "^"),
    "repeat": ("the current step's heads again", "#e6550d", ":", "v"),
}
NAMES = {
    "f1": "F1",
    "auprc": "AUPRC",
    "r2_variance_weighted": "R², weighted by each head's variance",
    "top_overlap": "true top heads among the predicted",
}


def plot_offsets(results: dict[str, Any], kinds: Sequence[str], names: Sequence[str]) -> "Figure":
    """One panel for each figure; bands are 95 % intervals over samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(names), 4.1), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(panels, names, strict=True):
        for kind in kinds:
            label, colour, line, marker = LINE_STYLES[kind]
            cells = [(offset["k"], offset[kind][name]) for offset in results["offsets"] if kind in offset]
            k = [number for number, _ in cells]
            value, low, high = (np.array([cell[key] for _, cell in cells]) for key in ("value", "low", "high"))
            axis.plot(k, value, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
            axis.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("offset k, steps")
        axis.set_ylabel(NAMES[name])
        axis.set_ylim(top=1.02)
        axis.grid(axis="y", color="0.92")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    return figure
