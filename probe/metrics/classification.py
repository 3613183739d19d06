"""Micro-averaged metrics of a multi-label classifier: every (row, head) pair is one binary decision."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.metrics.evaluated import Evaluated
from probe.metrics.intervals import Weights


@dataclass(frozen=True)
class ClassificationMetrics:
    """Micro-averaged precision, recall and F1 at a threshold, and the area under the precision-recall curve (Table 2).

    Attributes:
        f1: 2PR / (P + R); 0 where precision and recall both are.
        precision: P, the share of predicted pairs that are positive.
        recall: R, the share of positive pairs that are predicted.
        auprc: Average precision, the step-wise area Σ (Rₙ - Rₙ₋₁) Pₙ; NaN without a positive pair.

    >>> ClassificationMetrics(f1=0.5, precision=0.5, recall=0.5, auprc=0.8).as_dict()
    {'f1': 0.5, 'precision': 0.5, 'recall': 0.5, 'auprc': 0.8}

    """

    f1: float
    precision: float
    recall: float
    auprc: float

    def as_dict(self) -> dict[str, float]:
        """Plain values by name."""
        return asdict(self)


def best_threshold(scores: Float[Tensor, "row head"], labels: Bool[Tensor, "row head"]) -> float:
    """Threshold of the highest micro F1 on the precision-recall curve; 1 without a positive label.

    A pair is predicted positive where score ≥ threshold (A.5: chosen on the validation split).

    >>> best_threshold(torch.tensor([[0.125, 0.375], [0.5, 0.75]]), torch.tensor([[False, True], [False, True]]))
    0.375

    """
    return RankedDecisions(scores, labels, torch.zeros(len(scores), dtype=torch.int64)).best_threshold()


class RankedDecisions:
    """All (row, head) decisions in order of their scores, for metrics under any weights of the samples.

    They are sorted once, so that each bootstrap resample costs a cumulative sum. scikit-learn's
    `average_precision_score` gives the same value with `sample_weight`, but sorts for each resample.

    Args:
        scores: Predicted scores.
        labels: Whether the head is positive.
        sample: Sample number of each row.

    >>> scores, labels = torch.tensor([[0.9, 0.2], [0.6, 0.4]]), torch.tensor([[True, False], [False, True]])
    >>> RankedDecisions(scores, labels, torch.tensor([0, 1])).metrics(threshold=0.5)
    ClassificationMetrics(f1=0.5, precision=0.5, recall=0.5, auprc=0.8333333333333333)

    """

    def __init__(
        self,
        scores: Float[Tensor, "row head"],
        labels: Bool[Tensor, "row head"],
        sample: Int[Tensor, "row"],
    ) -> None:
        flat = scores.flatten()
        order = torch.argsort(flat, descending=True)
        self.scores = flat[order].numpy()
        self.labels = labels.flatten()[order].numpy().astype(np.float64)
        samples, index = np.unique(sample.numpy(), return_inverse=True)
        self.samples = len(samples)
        self.sample_index = np.repeat(index, scores.shape[1])[order.numpy()]
        # Tied scores share a threshold: the curve has a point only where the score changes.
        self.ends = np.flatnonzero(np.append(np.diff(self.scores) != 0, True))

    def best_threshold(self) -> float:
        """Threshold of the highest micro F1: see `best_threshold`; of several the lowest."""
        true_positives, predicted = (
            np.cumsum(counts)[self.ends] for counts in (self.labels, np.ones_like(self.labels))
        )
        if not true_positives[-1]:
            return 1.0
        precision, recall = true_positives / predicted, true_positives / true_positives[-1]
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        return float(self.scores[self.ends][len(f1) - 1 - np.argmax(f1[::-1])])

    def metrics(self, threshold: float, weights: Weights | None = None) -> ClassificationMetrics:
        """The metrics at a threshold.

        Args:
            threshold: Pairs of this score or a higher one are predicted positive.
            weights: How often each sample counts, in the order of their numbers; by default once.

        """
        weight = np.ones(len(self.sample_index)) if weights is None else weights[self.sample_index]
        true_positives = np.cumsum(weight * self.labels)[self.ends]
        predicted = np.cumsum(weight)[self.ends]
        positives = true_positives[-1]
        if positives == 0:
            return ClassificationMetrics(0.0, 0.0, 0.0, float("nan"))
        precisions = np.divide(true_positives, predicted, out=np.zeros_like(true_positives), where=predicted > 0)
        auprc = float(np.sum(np.diff(true_positives, prepend=0.0) * precisions) / positives)
        last = np.searchsorted(-self.scores[self.ends], -threshold, side="right") - 1  # the last score ≥ threshold
        if last < 0 or true_positives[last] == 0:
            return ClassificationMetrics(0.0, 0.0, 0.0, auprc)
        precision, recall = float(precisions[last]), float(true_positives[last] / positives)
        return ClassificationMetrics(2 * precision * recall / (precision + recall), precision, recall, auprc)

    def evaluated(self, threshold: float, resamples: int, seed: int) -> Evaluated:
        """The metrics with their bootstrap resamples over samples, whose rows belong together."""
        return Evaluated.of(lambda weights: self.metrics(threshold, weights).as_dict(), self.samples, resamples, seed)
