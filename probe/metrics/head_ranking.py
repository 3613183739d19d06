"""How well predicted scores rank the heads of one step, which is what choosing heads for retrieval needs."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

NAMES = ("top_overlap", "ndcg", "rank_correlation")


def top_heads(scores: Float[Tensor, "row head"], count: int) -> Int[Tensor, "row top"]:
    """The heads of highest score, best first; of equal ones the lower number."""
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :count]


def ranking_figures(
    predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"], top: int
) -> dict[str, Float[Tensor, "row"]]:
    """Figures of each step; NaN where a head has no score.

    `top_overlap` is the share of the `top` highest heads that are predicted as such; `ndcg` the discounted gain of the
    predicted `top` against the best possible, with the true scores as gains; `rank_correlation` Spearman's, over all
    heads, with mean ranks for ties.
    """
    known = scores.isfinite().all(dim=1)
    truth = scores.nan_to_num().double()
    chosen, best = top_heads(predicted, top), top_heads(truth, top)
    overlap = (chosen[:, :, None] == best[:, None, :]).any(dim=2).double().mean(dim=1)
    discount = 1 / torch.log2(torch.arange(chosen.shape[1], device=scores.device) + 2.0).double()
    gain = (truth.gather(1, chosen) * discount).sum(dim=1)
    ideal = (truth.gather(1, best) * discount).sum(dim=1)
    correlation = _pearson(mean_ranks(predicted), mean_ranks(truth))
    figures = dict(zip(NAMES, (overlap, gain / ideal, correlation), strict=True))
    return {name: torch.where(known, figure, torch.nan) for name, figure in figures.items()}


def mean_ranks(values: Float[Tensor, "row head"]) -> Float[Tensor, "row head"]:
    """Rank of each value within its row, from 0; equal values share the mean of their ranks."""
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values, side="left")
    upto = torch.searchsorted(ordered, values, side="right")
    return (below + upto - 1).double() / 2


def _pearson(a: Float[Tensor, "row head"], b: Float[Tensor, "row head"]) -> Float[Tensor, "row"]:
    """Correlation within each row; NaN where a side never varies."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
