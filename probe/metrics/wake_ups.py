"""Heads that wake up: dynamic k steps later and not now, the harder part of predicting later heads."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.scores import Target, is_dynamic
from probe.metrics.classification import RankedDecisions, best_threshold

Pairs = tuple[Bool[Tensor, "row head"], Bool[Tensor, "row head"]]
"""Which (row, head) pairs are decisions, and which of them are wake-ups."""


def wake_up_pairs(
    current: Float[Tensor, "row head"], later: Float[Tensor, "row head"], target: Target, threshold: float
) -> Pairs:
    """Pairs of a head that is not dynamic now, and whether it is k steps later.

    A head that is dynamic already cannot wake up and is no decision at that step, for any predictor; so is a head
    without a score now or later. All other heads of the model count, also those that never score.

    Args:
        current: Scores of the current step.
        later: Scores k steps later.
        target: The score.
        threshold: Reasoning scores from here on make a head dynamic.

    >>> import torch
    >>> now, later = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    >>> wake_up_pairs(now, later, "copy_paste", threshold=0.5)
    (tensor([[False,  True,  True]]), tensor([[False,  True, False]]))

    """
    asleep = current.isfinite() & ~is_dynamic(current, target, threshold) & later.isfinite()
    return asleep, asleep & is_dynamic(later, target, threshold)


def wake_up_decisions(
    predicted: Float[Tensor, "row head"], pairs: Pairs, sample: Int[Tensor, "row"]
) -> RankedDecisions:
    """The decisions of one predictor: every pair of a head that is not dynamic now, ranked by its predicted score.

    >>> import torch
    >>> pairs = wake_up_pairs(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), "copy_paste", 0.5)
    >>> wake_up_decisions(torch.tensor([[0.9, 0.6, 0.2]]), pairs, torch.tensor([7])).metrics(threshold=0.5).precision
    1.0

    """
    asleep, wakes = pairs
    sample_of_pair = sample[:, None].expand(asleep.shape)[asleep]
    return RankedDecisions(predicted[asleep][:, None], wakes[asleep][:, None], sample_of_pair)


def wake_up_threshold(predicted: Float[Tensor, "row head"], pairs: Pairs) -> float:
    """Threshold of the highest micro F1 of wake-ups, for validation rows; 1 where no head wakes up.

    >>> import torch
    >>> pairs = wake_up_pairs(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), "copy_paste", 0.5)
    >>> wake_up_threshold(torch.tensor([[0.875, 0.625, 0.25]]), pairs)
    0.625

    """
    asleep, wakes = pairs
    return best_threshold(predicted[asleep][:, None], wakes[asleep][:, None])
