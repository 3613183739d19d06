"""Figures of predicted scores (Table 3, and the ranking within a step), with intervals over samples."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from probe.metrics.head_ranking import NAMES, ranking_figures
from probe.metrics.intervals import Interval, bootstrap

Sums = NDArray[np.float64]


class Regression:
    """Sums over each sample, from which every figure follows for any weighting of the samples.

    Args:
        predicted, scores: Of every (row, head); a score of NaN is left out.
        sample: Sample number of each row.
        top: Heads that count as a step's best.

    """

    def __init__(
        self,
        predicted: Float[Tensor, "row head"],
        scores: Float[Tensor, "row head"],
        sample: Int[Tensor, "row"],
        top: int = 5,
    ) -> None:
        units, unit = torch.unique(sample, return_inverse=True)
        self.samples = len(units)
        known = scores.isfinite()
        # Squares of small deviations: taken around each head's mean, nothing cancels.
        centre = torch.where(known, scores, 0.0).double().sum(0) / known.sum(0).clamp(min=1)
        self.centre: Sums = centre.numpy()
        deviation = torch.where(known, scores - centre, 0.0).double()
        error = torch.where(known, predicted - scores.double(), 0.0)

        def per_sample(values: Tensor) -> Sums:
            out = torch.zeros(self.samples, *values.shape[1:], dtype=torch.float64)
            return out.index_add_(0, unit, values.double()).numpy()

        self.count, self.moment, self.square = (per_sample(x) for x in (known, deviation, deviation.square()))
        self.squared, self.absolute = per_sample(error.square().sum(1)), per_sample(error.abs().sum(1))
        self.ranking = {}
        for name, figure in ranking_figures(predicted, scores, top).items():
            self.ranking[name] = (per_sample(figure.nan_to_num()), per_sample(figure.isfinite()))

    def figures(self, weights: Sums | None = None) -> dict[str, float]:
        """MSE, MAE, R² in two readings, and the ranking's figures, each sample counted `weights` times (once).

        `r2_variance_weighted` weighs each head's R² by its variance; `r2_flattened` takes all pairs as one variable,
        so that differences between heads count as variance to explain. A uniform mean over heads is not given: heads
        that never move make it explode.
        """
        weight = np.ones(self.samples) if weights is None else weights
        count, moment, square = weight @ self.count, weight @ self.moment, weight @ self.square
        total, squared = count.sum(), weight @ self.squared
        shift = moment / np.maximum(count, 1)  # from the centre to the mean of these weights
        within = (square - count * shift**2).sum()
        means = self.centre + shift
        with np.errstate(divide="ignore", invalid="ignore"):
            around = within + (count * (means - (count @ means) / total) ** 2).sum()
            figures = {
                "mse": squared / total,
                "mae": weight @ self.absolute / total,
                "r2_variance_weighted": 1 - squared / within,
                "r2_flattened": 1 - squared / around,
                **{name: weight @ sums / (weight @ counts) for name, (sums, counts) in self.ranking.items()},
            }
        return {name: float(figure) for name, figure in figures.items()}

    def intervals(self, resamples: int, seed: int) -> dict[str, Interval]:
        """95 % bootstrap intervals over samples, whose rows belong together."""
        return bootstrap(self.figures, self.samples, resamples, seed)


FIGURES = ("mse", "mae", "r2_variance_weighted", "r2_flattened", *NAMES)
