"""Micro-averaged metrics of a multi-label classifier: every (row, head) pair is one binary decision."""

import functools
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from numpy.typing import NDArray
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


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Points of a precision-recall curve, by descending threshold; a pair is positive where score ≥ threshold.

    Attributes:
        true_positives: Positive pairs that are predicted at each threshold.
        predicted: All pairs that are.
        thresholds: The scores, each once.

    >>> curve = PrecisionRecallCurve.of_counts(np.array([0.2, 0.9, 0.6]), np.array([1, 1, 0]), np.array([4, 1, 1]))
    >>> curve.best_threshold(), curve.metrics(0.9).recall
    (0.9, 0.5)

    """

    true_positives: Float[np.ndarray, "point"]
    predicted: Float[np.ndarray, "point"]
    thresholds: Real[np.ndarray, "point"]

    @classmethod
    def of_counts(
        cls, scores: Real[np.ndarray, "group"], positives: Real[np.ndarray, "group"], pairs: Real[np.ndarray, "group"]
    ) -> "PrecisionRecallCurve":
        """The curve of groups of pairs that share a score.

        Args:
            scores: Of each group, in any order.
            positives: Positive pairs of each.
            pairs: All pairs of each.

        """
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # tied scores share a point
        true_positives, predicted = (np.cumsum(counts[order].astype(np.float64))[ends] for counts in (positives, pairs))
        return cls(true_positives, predicted, scores[order][ends])

    def _precisions(self) -> Float[np.ndarray, "point"]:
        out = np.zeros_like(self.true_positives)
        np.divide(self.true_positives, self.predicted, out=out, where=self.predicted > 0)
        return out

    def best_threshold(self) -> float:
        """Threshold of the highest F1, of several the lowest; 1 without a positive pair."""
        if not self.true_positives[-1]:
            return 1.0
        precision, recall = self._precisions(), self.true_positives / self.true_positives[-1]
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        return float(self.thresholds[len(f1) - 1 - np.argmax(f1[::-1])])

    def metrics(self, threshold: float) -> ClassificationMetrics:
        """The metrics at a threshold."""
        true_positives, positives = self.true_positives, self.true_positives[-1]
        if positives == 0:
            return ClassificationMetrics(0.0, 0.0, 0.0, float("nan"))
        precisions = self._precisions()
        auprc = float(np.sum(np.diff(true_positives, prepend=0.0) * precisions) / positives)
        last = np.searchsorted(-self.thresholds, -threshold, side="right") - 1  # the last score ≥ threshold
        if last < 0 or true_positives[last] == 0:
            return ClassificationMetrics(0.0, 0.0, 0.0, auprc)
        precision, recall = float(precisions[last]), float(true_positives[last] / positives)
        return ClassificationMetrics(2 * precision * recall / (precision + recall), precision, recall, auprc)


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
        samples, self._index = np.unique(sample.numpy(), return_inverse=True)
        self.samples = len(samples)
        self._order, self._heads = order.numpy(), scores.shape[1]
        # Tied scores share a threshold: the curve has a point only where the score changes.
        self.ends = np.flatnonzero(np.append(np.diff(self.scores) != 0, True))

    def best_threshold(self) -> float:
        """Threshold of the highest micro F1: see `best_threshold`; of several the lowest."""
        return self._unweighted.best_threshold()

    def metrics(self, threshold: float, weights: Weights | None = None) -> ClassificationMetrics:
        """The metrics at a threshold.

        Args:
            threshold: Pairs of this score or a higher one are predicted positive.
            weights: How often each sample counts, in the order of their numbers; by default once.

        """
        curve = self._unweighted if weights is None else self._curve(weights[self._sample_index])
        return curve.metrics(threshold)

    @functools.cached_property
    def _sample_index(self) -> NDArray[np.int64]:
        """Sample of each pair, which only weights need."""
        found: NDArray[np.int64] = np.repeat(self._index, self._heads)[self._order]
        return found

    @functools.cached_property
    def _unweighted(self) -> PrecisionRecallCurve:
        return self._curve(np.ones(len(self.labels)))

    def _curve(self, weight: NDArray[np.float64]) -> PrecisionRecallCurve:
        true_positives, predicted = (np.cumsum(counts)[self.ends] for counts in (weight * self.labels, weight))
        return PrecisionRecallCurve(true_positives, predicted, self.scores[self.ends])

    def evaluated(self, threshold: float, resamples: int, seed: int) -> Evaluated:
        """The metrics with their bootstrap resamples over samples, whose rows belong together."""
        return Evaluated.of(lambda weights: self.metrics(threshold, weights).as_dict(), self.samples, resamples, seed)
