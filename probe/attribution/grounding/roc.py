"""Area under the ROC curve of scores whose items are clustered by question: intervals, paired test, threshold."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from extract.intervals import MIN_UNITS
from probe.metrics import Bootstrap, bootstrap_weights, percentile_interval

Scores = Float[np.ndarray, "item"]
Labels = Bool[np.ndarray, "item"]


def auroc(
    scores: Scores, labels: Labels, weights: Float[np.ndarray, "*resample item"] | None = None
) -> Float[np.ndarray, "*resample"]:
    """Area under the ROC curve: P(score of a positive > that of a negative) + ½ P(equal); NaN without both.

    Args:
        scores: Of each item.
        labels: Whether it is positive.
        weights: How often it counts, in each resample; by default once.

    >>> float(auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])))
    0.875

    """
    weight = np.ones(len(scores)) if weights is None else weights
    if not len(scores):
        return np.full(weight.shape[:-1], np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # of the groups of equal scores
    positive, negative = (np.add.reduceat((weight * of)[..., order], starts, axis=-1) for of in (labels, ~labels))
    below = np.cumsum(negative, axis=-1) - negative
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    above = (positive * (below + negative / 2)).sum(axis=-1)
    return np.asarray(np.divide(above, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0))


def placements(scores: Scores, labels: Labels) -> Float[np.ndarray, "item"]:
    """Placement of each item: share of the other class that it is ordered correctly with, ½ for equal scores.

    The mean over the positive items, and over the negative ones, is the area under the ROC curve.

    >>> placements(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])).tolist()
    [1.0, 0.75, 0.75, 1.0]

    """
    found = np.empty(len(scores))
    for mine, sign in ((labels, 1), (~labels, -1)):
        others = np.sort(sign * scores[~mine])
        low, high = (np.searchsorted(others, sign * scores[mine], side) for side in ("left", "right"))
        found[mine] = (low + high) / 2 / max(1, len(others))
    return found


def paired_auroc_p(first: Scores, second: Scores, labels: Labels, question: Int[np.ndarray, "item"]) -> float:
    """Two-sided p-value of two scores' difference in area under the ROC curve, items clustered by question.

    Of each score the placements V are taken, and D = V₁ - V₂ - (A₁ - A₂). The variance of A₁ - A₂ is
    S₊ / m² + S₋ / n² + 2 S± / (m n) for m positive and n negative items, where S₊ = I₊ / (I₊ - 1) Σ (Σ D)² over the
    I₊ questions with positive items, S₋ alike, and S± = I / (I - 1) Σ (Σ D₊)(Σ D₋) over all; the ratio to its root is
    normal. Source: Obuchowski (1997), after DeLong et al. (1988). 1 where the areas are equal; NaN for fewer than two
    questions with items of a class.

    Args:
        first: One score of each item.
        second: The other one.
        labels: Whether each is positive.
        question: Question of each.

    >>> scores, labels = np.array([0.9, 0.8, 0.3, 0.2, 0.6, 0.7]), np.array([True, True, False, False, True, False])
    >>> round(paired_auroc_p(scores, scores[::-1], labels, np.array([0, 1, 0, 1, 2, 2])), 4)
    0.0455

    """
    gap = placements(first, labels) - placements(second, labels)
    numbers, index = np.unique(question, return_inverse=True)
    sums, variance = list[Any](), 0.0
    for mine in (labels, ~labels):
        clusters = np.unique(index[mine])
        if len(clusters) < 2:
            return float("nan")
        centred = np.where(mine, gap - gap[mine].mean(), 0.0) / mine.sum()
        sums.append(np.bincount(index, centred, len(numbers)))
        variance += len(clusters) / (len(clusters) - 1) * float(sums[-1] @ sums[-1])
    variance += 2 * len(numbers) / (len(numbers) - 1) * float(sums[0] @ sums[1])
    difference = float(gap[labels].mean())
    if not difference:
        return 1.0
    return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance))) if variance > 0 else 0.0


def youden_threshold(scores: Scores, labels: Labels) -> float:
    """Threshold of the largest Youden index: recall of the positive items + that of the negative ones - 1.

    An item is positive from the threshold on, which is halfway between two scores; of several the lowest. NaN without
    both classes.

    >>> youden_threshold(np.array([0.1, 0.4, 0.2, 0.8]), np.array([False, True, False, True]))
    0.30000000000000004

    """
    if labels.all() or not labels.any():
        return float("nan")
    values = np.unique(scores)
    bounds = np.append(values[0], (values[:-1] + values[1:]) / 2)
    index = [sum(recalls(scores, labels, bound)) for bound in bounds]
    return float(bounds[int(np.argmax(index))])


def recalls(scores: Scores, labels: Labels, threshold: float) -> tuple[float, float]:
    """Recall of the positive items, whose score reaches a threshold, and of the negative ones, whose does not.

    NaN for a class without an item. Also known as sensitivity and specificity.

    >>> recalls(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]), threshold=0.5)
    (0.5, 1.0)

    """
    reached = scores >= threshold
    found = (reached[labels], ~reached[~labels])
    positive, negative = (float(one.mean()) if len(one) else float("nan") for one in found)
    return positive, negative


@dataclass(frozen=True, eq=False)
class ClusteredItems:
    """Labelled items of some questions, with several scores.

    Attributes:
        scores: By name.
        labels: Whether each item is positive.
        question: Question of each.

    >>> labels, question = np.array([True, False, True, False]), np.array([0, 0, 1, 2])
    >>> items = ClusteredItems({"a": np.array([3.0, 1.0, 2.0, 2.0])}, labels, question)
    >>> items.areas(Bootstrap(resamples=100))["a"]["value"], items.counts()
    (0.875, {'positive': 2, 'negative': 2, 'questions': 3})

    """

    scores: dict[str, Scores]
    labels: Labels
    question: Int[np.ndarray, "item"]

    def chosen(self, mask: Bool[np.ndarray, "item"]) -> "ClusteredItems":
        """Some of the items."""
        scores = {name: values[mask] for name, values in self.scores.items()}
        return ClusteredItems(scores, self.labels[mask], self.question[mask])

    def counts(self) -> dict[str, int]:
        """Number of items of each class, and of questions."""
        positive = int(self.labels.sum())
        questions = len(np.unique(self.question))
        return {"positive": positive, "negative": len(self.labels) - positive, "questions": questions}

    def resampled(self, bootstrap: Bootstrap) -> dict[str, Float[np.ndarray, "resample"]]:
        """Area of each score under bootstrap resamples of questions, the same ones for all scores."""
        questions, index = np.unique(self.question, return_inverse=True)
        resamples = bootstrap.resamples if len(questions) >= MIN_UNITS else 0
        weights = bootstrap_weights(len(questions), resamples, bootstrap.seed)[:, index]
        return {name: auroc(values, self.labels, weights) for name, values in self.scores.items()}

    def areas(self, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
        """Area under the ROC curve of each score, with interval and number of questions."""
        resampled, questions = self.resampled(bootstrap), self.counts()["questions"]
        return {
            name: {
                "value": float(auroc(values, self.labels)),
                **dict(zip(("low", "high"), percentile_interval(resampled[name].tolist()), strict=True)),
                "n": questions,
            }
            for name, values in self.scores.items()
        }

    def differences(self, bootstrap: Bootstrap, score: str, baselines: list[str]) -> list[dict[str, Any]]:
        """Area of a score minus that of each baseline, with interval and p-value."""
        resampled = self.resampled(bootstrap)
        found = []
        for name in baselines:
            low, high = percentile_interval((resampled[score] - resampled[name]).tolist())
            areas = [float(auroc(self.scores[one], self.labels)) for one in (score, name)]
            p = paired_auroc_p(self.scores[score], self.scores[name], self.labels, self.question)
            pair = {"first": score, "second": name, "n": self.counts()["questions"]}
            found.append({**pair, "difference": areas[0] - areas[1], "low": low, "high": high, "p": p})
        return found
