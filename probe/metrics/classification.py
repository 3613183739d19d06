"""Micro-averaged figures of a multi-label classifier: one decision for each (row, head) pair."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor

from probe.metrics.intervals import Interval, bootstrap


@dataclass(frozen=True)
class Figures:
    """Table 2's row: precision, recall and F1 at a threshold, and the area under the curve.

    AUPRC is the step-wise area (average precision). F1 is 0 where precision and recall both are.
    """

    f1: float
    precision: float
    recall: float
    auprc: float

    def as_dict(self) -> dict[str, float]:
        """Plain values by name."""
        return asdict(self)


def best_threshold(scores: Float[Tensor, "row head"], labels: Bool[Tensor, "row head"]) -> float:
    """The threshold of highest F1 on the precision-recall curve (predict 1 where score ≥ threshold)."""
    if not bool(labels.any()):
        return 1.0
    precision, recall, thresholds = precision_recall_curve(labels.flatten().numpy(), scores.flatten().numpy())
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    return float(thresholds[np.argmax(f1[:-1])])


class Ranked:
    """All decisions sorted by score once, so that a resample of samples costs one cumulative sum.

    Args:
        scores, labels: Of every (row, head).
        sample: Sample number of each row.

    """

    def __init__(self, scores: Float[Tensor, "row head"], labels: Bool[Tensor, "row head"], sample: Tensor) -> None:
        flat = scores.flatten()
        order = torch.argsort(flat, descending=True)
        self.scores = flat[order].numpy()
        self.labels = labels.flatten()[order].numpy().astype(np.float64)
        units, unit = np.unique(sample.numpy(), return_inverse=True)
        self.samples = len(units)
        self.unit = np.repeat(unit, scores.shape[1])[order.numpy()]
        # Tied scores are one decision: the curve has a point only where the score changes.
        self.ends = np.flatnonzero(np.append(np.diff(self.scores) != 0, True))

    def figures(self, threshold: float, weights: NDArray[np.float64] | None = None) -> Figures:
        """The figures, each sample counted `weights` times (once by default)."""
        weight = np.ones(len(self.unit)) if weights is None else weights[self.unit]
        hits = np.cumsum(weight * self.labels)[self.ends]
        chosen = np.cumsum(weight)[self.ends]
        total = hits[-1]
        if total == 0:
            return Figures(0.0, 0.0, 0.0, float("nan"))
        precisions = np.divide(hits, chosen, out=np.zeros_like(hits), where=chosen > 0)
        auprc = float(np.sum(np.diff(hits, prepend=0.0) * precisions) / total)
        at = np.searchsorted(-self.scores[self.ends], -threshold, side="right") - 1
        if at < 0 or hits[at] == 0:
            return Figures(0.0, 0.0, 0.0, auprc)
        precision, recall = float(precisions[at]), float(hits[at] / total)
        return Figures(2 * precision * recall / (precision + recall), precision, recall, auprc)

    def intervals(self, threshold: float, resamples: int, seed: int) -> dict[str, Interval]:
        """95 % bootstrap intervals over samples, whose rows belong together."""
        return bootstrap(lambda weights: self.figures(threshold, weights).as_dict(), self.samples, resamples, seed)
