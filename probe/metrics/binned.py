"""Micro-averaged metrics in bounded memory: scores are counted by bin, not kept."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from probe.metrics.classification import PrecisionRecallCurve

EXACT_PAIRS = 2**26
"""Most (row, head) pairs whose scores are kept and sorted: about 2.5 GiB. Of more, bins are counted."""


class BinnedDecisions(Metric):
    """Micro precision, recall, F1 and average precision of scores in [0, 1], at thresholds i / `bins` alone.

    The memory does not depend on the number of rows, and counts add up over batches and processes. At a threshold
    i / `bins`, precision, recall and F1 are those of all pairs exactly; the best threshold is the best of these, and
    average precision has a point for each bin, so that pairs of one bin count as tied. torchmetrics'
    `BinaryPrecisionRecallCurve` counts the same, with a pass over all pairs for each threshold.

    Args:
        heads: Number of heads.
        bins: A power of 2, so that every i / `bins` is exact.
        **kwargs: See `torchmetrics.Metric`.

    >>> decisions = BinnedDecisions(heads=2, bins=8)
    >>> decisions.update(torch.tensor([[0.9, 0.2], [0.6, 0.4]]), torch.tensor([[True, False], [False, True]]))
    >>> curve = decisions.curve()
    >>> curve.best_threshold(), round(curve.metrics(0.5).auprc, 3)
    (0.25, 0.833)

    """

    full_state_update = False
    positives: Tensor
    pairs: Tensor
    head_positives: Tensor
    rows: Tensor

    def __init__(self, heads: int, bins: int = 4096, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        for name, size in (("positives", bins), ("pairs", bins), ("head_positives", heads), ("rows", 1)):
            self.add_state(name, default=torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Float[Tensor, "row head"], labels: Bool[Tensor, "row head"]) -> None:
        """Count a batch."""
        place = (scores.flatten() * self.bins).long().clamp(0, self.bins - 1)
        self.pairs += place.bincount(minlength=self.bins)
        self.positives += place[labels.flatten()].bincount(minlength=self.bins)
        self.head_positives += labels.sum(dim=0)
        self.rows += len(labels)

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positive pairs and all pairs of each bin, rows in which each head is positive, and all rows."""
        return self.positives, self.pairs, self.head_positives, self.rows

    def curve(self) -> PrecisionRecallCurve:
        """The curve of all pairs, over all processes."""
        positives, pairs = (counts.numpy(force=True) for counts in self.compute()[:2])
        return PrecisionRecallCurve.of_counts(np.arange(self.bins) / self.bins, positives, pairs)


def constant_curve(scores: Float[Tensor, "head"], positives: Tensor, rows: int) -> PrecisionRecallCurve:
    """The curve of scores that are the same in every row, as those of static heads.

    Args:
        scores: Of each head.
        positives: Rows in which each head is positive.
        rows: Number of rows.

    >>> constant_curve(torch.tensor([0.1, 0.7]), torch.tensor([1, 3]), rows=4).best_threshold()
    0.699999988079071

    """
    pairs = np.full(len(scores), rows)
    return PrecisionRecallCurve.of_counts(scores.numpy(force=True), positives.numpy(force=True), pairs)
