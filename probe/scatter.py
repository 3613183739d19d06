"""Predicted against true scores, for the heads that vary most."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scatter(
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
