"""Evaluation of probes of later steps: all scores of k steps later, and the heads that wake up until then."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from extract.scores import Target
from probe.metrics.classification import RankedDecisions
from probe.metrics.evaluated import Evaluated, differences
from probe.metrics.intervals import Bootstrap
from probe.metrics.regression import RegressionSums
from probe.metrics.wake_ups import wake_up_decisions, wake_up_pairs

Predicted = Iterable[tuple[str, Float[Tensor, "row head"], float]]
"""Name, scores and decision threshold of each predictor, for all rows; the first is compared with all others."""


@dataclass(frozen=True)
class EvaluatedRows:
    """Test rows of probes of later steps.

    Attributes:
        outputs: Outputs of the probe of each offset.
        scores: True scores at each offset; NaN past the end of the sample.
        sample: Sample number of each row.
        step: Step number of each row.
        known: Scores of the step before each row's; NaN at a first step.

    """

    outputs: Float[Tensor, "row offset head"]
    scores: Float[Tensor, "row offset head"]
    sample: Int[Tensor, "row"]
    step: Int[Tensor, "row"]
    known: Float[Tensor, "row head"]

    def scored(self, k: int) -> Bool[Tensor, "row"]:
        """Rows with scores at their own step and k steps later."""
        return has_score(self.scores[:, k]) & has_score(self.scores[:, 0])


@dataclass(frozen=True)
class OffsetEvaluation:
    """Metrics of several predictors of the same rows.

    Attributes:
        target: The score.
        threshold: Reasoning scores from here on make a head dynamic.
        top: Number of heads of top overlap and NDCG (reasoning scores).
        bootstrap: Of the intervals and paired differences, over samples.

    """

    target: Target
    threshold: float
    top: int
    bootstrap: Bootstrap

    def of_scores(self, rows: EvaluatedRows, k: int, predicted: Predicted) -> dict[str, Any]:
        """Metrics of the scores k steps later, on the rows that have scores at both steps."""
        scored = rows.scored(k)
        truth, sample = rows.scores[scored, k], rows.sample[scored]
        found = {}
        for kind, values, threshold in predicted:
            if self.target == "copy_paste":
                found[kind] = self._ranked(RankedDecisions(values[scored], truth > 0, sample), threshold)
            else:
                sums = RegressionSums(values[scored], truth, sample, self.top)
                found[kind] = sums.evaluated(self.bootstrap.resamples, self.bootstrap.seed)
        return {"k": k, "rows": int(scored.sum()), **_cells(found)}

    def of_wake_ups(self, rows: EvaluatedRows, k: int, predicted: Predicted) -> dict[str, Any]:
        """Metrics of which heads are dynamic k steps later, among those that are not now."""
        scored = rows.scored(k)
        pairs = wake_up_pairs(rows.scores[scored, 0], rows.scores[scored, k], self.target, self.threshold)
        found, thresholds = {}, {}
        for kind, values, threshold in predicted:
            found[kind] = self._ranked(wake_up_decisions(values[scored], pairs, rows.sample[scored]), threshold)
            thresholds[kind] = threshold
        counts = {"rows": int(scored.sum()), "pairs": int(pairs[0].sum()), "events": int(pairs[1].sum())}
        return {"k": k, **counts, "thresholds": thresholds, **_cells(found)}

    def _ranked(self, decisions: RankedDecisions, threshold: float) -> Evaluated:
        return decisions.evaluated(threshold, self.bootstrap.resamples, self.bootstrap.seed)


def _cells(found: dict[str, Evaluated]) -> dict[str, Any]:
    return {**{kind: one.estimates() for kind, one in found.items()}, "differences": differences(found)}


def has_score(scores: Float[Tensor, "row head"]) -> Bool[Tensor, "row"]:
    """Rows with a score of any head at an offset: their sample has a step that far ahead.

    >>> import torch
    >>> has_score(torch.tensor([[0.1, torch.nan], [torch.nan, torch.nan]]))
    tensor([ True, False])

    """
    return scores.isfinite().any(dim=1)
