"""Metrics of attribution: how well scores of sources predict the answer's log-probability without them."""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from extract.heads import top_k
from probe.metrics import spearman

TIE = 1e-6
"""Predictions that differ by less, relative to the largest, are ties: sums in another order are rounded differently."""


def linear_datamodeling_score(
    scores: Float[Tensor, "source"], masks: Bool[Tensor, "run source"], log_probs: Float[Tensor, "run"]
) -> float:
    """Linear datamodeling score (LDS): Spearman's ρ of predicted and true log-probabilities of ablated runs.

    The prediction of a run is the sum of its kept sources' scores. 0 where all predictions are equal, since they rank
    nothing; NaN where the true values are, and for fewer than three runs. Source: Park et al. (2023).

    Args:
        scores: Of each source.
        masks: Kept sources of each run, which the scores were not computed from.
        log_probs: Of the answer in each run.

    >>> masks = torch.tensor([[True, True], [True, False], [False, True]])
    >>> round(linear_datamodeling_score(torch.tensor([2.0, 1.0]), masks, torch.tensor([-1.0, -2.0, -9.0])), 6)
    1.0

    """
    return rank_agreement(masks.double() @ scores.double(), log_probs)


def rank_agreement(predicted: Float[Tensor, "run"], log_probs: Float[Tensor, "run"]) -> float:
    """Spearman's ρ of predicted and true log-probabilities of an answer, as `linear_datamodeling_score` has it.

    Args:
        predicted: Of each ablated run, in any unit.
        log_probs: Of the answer in each run.

    >>> round(rank_agreement(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([-1.0, -2.0, -9.0])), 6)
    1.0

    """
    predicted = predicted.double()
    size = float(predicted.abs().max()) if len(predicted) else 0.0
    ranked = torch.round(predicted / (size * TIE)) if size else predicted
    if len(predicted) < 3 or not bool((log_probs != log_probs[0]).any()):
        return float("nan")
    if not bool((ranked != ranked[0]).any()):
        return 0.0
    return float(spearman(ranked[None], log_probs.double()[None])[0])


def pearson(
    predicted: Float[Tensor, "row run"], log_probs: Float[Tensor, "row run"], known: Bool[Tensor, "row run"]
) -> Float[Tensor, "row"]:
    """Pearson's r of each row over its known runs; 0 where the prediction is constant, NaN where the truth is.

    It is NaN for fewer than three runs, too. Differentiable in the prediction.

    Args:
        predicted: Log-probabilities, in any unit.
        log_probs: The true ones.
        known: Which runs each row has.

    >>> known = torch.ones(2, 3, dtype=torch.bool)
    >>> pearson(torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]] * 2), known)
    tensor([1., 0.])

    """
    runs = known.sum(dim=1, keepdim=True).clamp(min=1)
    x, y = (
        torch.where(known, one - torch.where(known, one, 0).sum(dim=1, keepdim=True) / runs, 0)
        for one in (predicted, log_probs)
    )
    xx, yy = x.square().sum(dim=1), y.square().sum(dim=1)
    found = (x * y).sum(dim=1) / (xx * yy).clamp(min=1e-20).sqrt()
    return torch.where((known.sum(dim=1) >= 3) & (yy > 1e-12), found, torch.nan)


def without_top(scores: Float[Tensor, "source"], k: int) -> Bool[Tensor, "source"]:
    """Mask that keeps all sources but the `k` of highest score; ties by the earlier source.

    >>> without_top(torch.tensor([0.1, 0.7, 0.2]), 2)
    tensor([ True, False, False])

    """
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[top_k(scores, k)] = False
    return kept


def largest_drop_share(scores: Float[Tensor, "source"], drops: Float[Tensor, "source"]) -> float:
    """Share of the largest leave-one-out drop that the source of highest score has; NaN where no drop is positive.

    `drop(argmax score) / max drop`; negative where the answer gains without that source.

    Args:
        scores: Of each source.
        drops: Fall of the answer's log-probability when it alone is removed.

    >>> largest_drop_share(torch.tensor([0.1, 0.7]), torch.tensor([4.0, 3.0]))
    0.75

    """
    largest = float(drops.max())
    return float(drops[top_k(scores, 1)]) / largest if largest > 0 else float("nan")


def mean_rank(scores: Float[Tensor, "source"], chosen: Collection[int]) -> float:
    """Rank of the best of some sources, 1 for the highest score; ties share their mean rank. NaN without a source.

    >>> mean_rank(torch.tensor([0.5, 0.9, 0.5]), [2]), mean_rank(torch.tensor([0.5, 0.9, 0.5]), [0, 1])
    (2.5, 1.0)

    """
    if not chosen:
        return float("nan")
    best = scores[list(chosen)].max()
    return float((scores > best).sum()) + (float((scores == best).sum()) + 1) / 2


def precision_recall(scores: Float[Tensor, "source"], facts: Collection[int], k: int) -> tuple[float, float]:
    """Precision and recall of the `k` sources of highest score as supporting facts; NaN without a fact.

    Args:
        scores: Of each source; ties by the earlier one.
        facts: Sources that are supporting facts.
        k: Sources that are cited; all where there are fewer.

    >>> precision_recall(torch.tensor([0.1, 0.9, 0.8]), facts=[1], k=2)
    (0.5, 1.0)

    """
    if not facts:
        return float("nan"), float("nan")
    cited = top_k(scores, k).tolist()
    found = len(set(cited) & set(facts))
    return found / len(cited), found / len(facts)
