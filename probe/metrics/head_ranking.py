"""Metrics of ranking the heads of one step, which choosing heads for retrieval needs."""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from extract.heads import top_k

RANKING_METRICS = ("top_overlap", "ndcg", "rank_correlation")
"""Names of the metrics of `ranking_metrics`."""


def ranking_metrics(
    predicted: Float[Tensor, "row head"], scores: Float[Tensor, "row head"], top: int
) -> dict[str, Float[Tensor, "row"]]:
    """Agreement of predicted and true order of each step's heads; NaN where a head has no true score.

    Args:
        predicted: Predicted scores.
        scores: True scores.
        top: Number of heads of `top_overlap` and `ndcg`.

    Returns:
        `top_overlap`, `ndcg` and `rank_correlation` (`spearman`) of each row.

    >>> found = ranking_metrics(torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[0.2, 0.0, 0.8]]), top=2)
    >>> {name: round(float(value), 3) for name, value in found.items()}
    {'top_overlap': 1.0, 'ndcg': 0.761, 'rank_correlation': 0.5}

    """
    known = scores.isfinite().all(dim=1)
    truth = scores.nan_to_num().double()
    values = (top_overlap(predicted, truth, top), ndcg(predicted, truth, top), spearman(predicted, truth))
    found = dict(zip(RANKING_METRICS, values, strict=True))
    return {name: torch.where(known, value, torch.nan) for name, value in found.items()}


def top_overlap(predicted: Float[Tensor, "row head"], truth: Float[Tensor, "row head"], k: int) -> Float[Tensor, "row"]:
    """Top-k overlap: share of the k heads of highest true score that are among the k of highest predicted score.

    |top_k(predicted) ∩ top_k(truth)| / k; ties by the lower head number.

    >>> top_overlap(torch.tensor([[0.9, 0.1, 0.5, 0.2]]), torch.tensor([[0.7, 0.6, 0.0, 0.1]]), k=2)
    tensor([0.5000], dtype=torch.float64)

    """
    chosen, best = top_k(predicted, k), top_k(truth, k)
    return (chosen[:, :, None] == best[:, None, :]).any(dim=2).double().mean(dim=1)


def ndcg(predicted: Float[Tensor, "row head"], truth: Float[Tensor, "row head"], k: int) -> Float[Tensor, "row"]:
    """Normalised discounted cumulative gain at k of each row, the true scores being the gains.

    DCG@k / ideal DCG@k with DCG@k = Σᵢ truth[i-th predicted head] / log₂(i + 1), i = 1 … k; NaN where every true score
    is 0. Source: Järvelin and Kekäläinen (2002).

    >>> ndcg(torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[0.2, 0.0, 0.8]]), k=2)
    tensor([0.7609], dtype=torch.float64)

    """
    # scikit-learn's ndcg_score and torchmetrics' retrieval_normalized_dcg give the same values, but one row a call
    # (the former returns means alone): 20 and 10 times slower on 10,000 rows of 270 heads.
    gains = truth.double()
    chosen, best = top_k(predicted, k), top_k(truth, k)
    discount = 1 / torch.log2(torch.arange(chosen.shape[1], device=truth.device) + 2.0).double()
    return (gains.gather(1, chosen) * discount).sum(dim=1) / (gains.gather(1, best) * discount).sum(dim=1)


def spearman(predicted: Float[Tensor, "row head"], truth: Float[Tensor, "row head"]) -> Float[Tensor, "row"]:
    """Spearman's rank correlation over the heads of each row, ties with their mean rank.

    NaN where a side is constant, and for a single head.

    >>> spearman(torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.3, 0.3]]), torch.tensor([[0.2, 0.0, 0.8], [0.1, 0.2, 0.3]]))
    tensor([0.5000,    nan], dtype=torch.float64)

    """
    if truth.shape[1] < 2:
        return torch.full((len(truth),), torch.nan, dtype=torch.float64, device=predicted.device)
    # SciPy correlates rows with `pearsonr` only; its `spearmanr` correlates every pair of rows.
    ranks = [stats.rankdata(side.numpy(force=True), axis=1) for side in (predicted, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # a constant side: NaN
        correlation = stats.pearsonr(*ranks, axis=1).statistic
    return torch.from_numpy(np.asarray(correlation)).to(predicted.device)


def most_varying(scores: Float[np.ndarray, "row head"], count: int) -> list[int]:
    """Heads of highest variance over rows, highest first; missing scores (NaN) are left out.

    >>> most_varying(np.array([[0.1, 0.0, np.nan], [0.2, 1.0, 0.4]], dtype=np.float32), count=2)
    [1, 0]

    """
    known = np.isfinite(scores).any(axis=0)
    variance = np.zeros(scores.shape[1])
    variance[known] = np.nanvar(scores[:, known], axis=0)
    heads: list[int] = top_k(torch.from_numpy(variance), count).tolist()
    return heads
