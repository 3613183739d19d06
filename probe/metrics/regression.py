"""Metrics of predicted reasoning scores: errors, R² and the ranking within a step (Table 3), with intervals."""

import functools

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from probe.metrics.evaluated import Evaluated
from probe.metrics.head_ranking import RANKING_METRICS, ranking_metrics
from probe.metrics.intervals import Weights

REGRESSION_METRICS = ("mse", "mae", "r2_variance_weighted", "r2_flattened", *RANKING_METRICS)
"""Names of the metrics of `RegressionSums.metrics`."""


def _sums(values: Tensor, index: Int[Tensor, "row"], samples: int) -> Float[np.ndarray, "sample *head"]:
    """Sums of rows by sample."""
    out = torch.zeros(samples, *values.shape[1:], dtype=torch.float64)
    return out.index_add_(0, index, values.double()).numpy()


class RegressionSums:
    """Sums over each sample, from which the metrics follow under any weights of the samples.

    scikit-learn's `r2_score` and `mean_squared_error` give the same values (the tests compare), but would read all rows
    again for each bootstrap resample.

    Args:
        predicted: Predicted scores.
        scores: True scores; NaN for a head without one, which is left out.
        sample: Sample number of each row.
        top: Number of heads of `top_overlap` and `ndcg`.

    >>> predicted, scores = torch.tensor([[0.5, 0.5], [0.5, 1.0]]), torch.tensor([[0.0, 0.5], [1.0, 1.0]])
    >>> found = RegressionSums(predicted, scores, torch.tensor([0, 1]), top=1).metrics()
    >>> {name: round(value, 3) for name, value in found.items() if name in ("mse", "mae", "r2_flattened")}
    {'mse': 0.125, 'mae': 0.25, 'r2_flattened': 0.273}
    >>> round(found["r2_variance_weighted"], 3)
    0.2

    """

    def __init__(
        self,
        predicted: Float[Tensor, "row head"],
        scores: Float[Tensor, "row head"],
        sample: Int[Tensor, "row"],
        top: int = 5,
    ) -> None:
        samples, index = torch.unique(sample, return_inverse=True)
        self.samples = len(samples)
        known = scores.isfinite()
        # Sums of squares are taken around each head's mean: small deviations do not cancel.
        centre = torch.where(known, scores, 0.0).double().sum(0) / known.sum(0).clamp(min=1)
        self.centre: NDArray[np.float64] = centre.numpy()
        deviation = torch.where(known, scores - centre, 0.0).double()
        error = torch.where(known, predicted - scores.double(), 0.0)
        per_sample = functools.partial(_sums, index=index, samples=self.samples)
        self.count, self.deviation = per_sample(known), per_sample(deviation)
        self.squared_deviation = per_sample(deviation.square())
        self.squared_error, self.absolute_error = per_sample(error.square().sum(1)), per_sample(error.abs().sum(1))
        self.ranking = {
            name: (per_sample(values.nan_to_num()), per_sample(values.isfinite()))
            for name, values in ranking_metrics(predicted, scores, top).items()
        }

    def metrics(self, weights: Weights | None = None) -> dict[str, float]:
        """MSE, MAE, R² (two ways) and the mean ranking metrics over rows, by name (`REGRESSION_METRICS`).

        With e the error, y the true score and means over (row, head) pairs that have a score:
        `mse` = mean e², `mae` = mean |e|;
        `r2_variance_weighted` = 1 - Σ e² / Σ (y - mean of its head)², each head's R² weighted by its variance;
        `r2_flattened` = 1 - Σ e² / Σ (y - mean of all pairs)², where differences between heads are variance to explain.
        An unweighted mean of the heads' R² is not given: heads of nearly constant score dominate it.

        Args:
            weights: How often each sample counts, in the order of their numbers; by default once.

        """
        weight = np.ones(self.samples) if weights is None else weights
        count = weight @ self.count
        total, squared_error = count.sum(), weight @ self.squared_error
        shift = weight @ self.deviation / np.maximum(count, 1)  # of each head's mean under these weights
        within = (weight @ self.squared_deviation - count * shift**2).sum()
        means = self.centre + shift
        with np.errstate(divide="ignore", invalid="ignore"):
            around = within + (count * (means - (count @ means) / total) ** 2).sum()
            values = {
                "mse": squared_error / total,
                "mae": weight @ self.absolute_error / total,
                "r2_variance_weighted": 1 - squared_error / within,
                "r2_flattened": 1 - squared_error / around,
                **{name: weight @ sums / (weight @ counts) for name, (sums, counts) in self.ranking.items()},
            }
        return {name: float(value) for name, value in values.items()}

    def evaluated(self, resamples: int, seed: int) -> Evaluated:
        """The metrics with their bootstrap resamples over samples, whose rows belong together."""
        return Evaluated.of(self.metrics, self.samples, resamples, seed)
