"""Metrics of a predictor with its bootstrap resamples, so that predictors of the same rows are compared in pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from probe.metrics.formatting import Estimate
from probe.metrics.intervals import Interval, Weights, percentile_interval, resampled_statistics


@dataclass(frozen=True)
class Evaluated:
    """Metrics of one predictor, and their values under every bootstrap resample of the samples.

    Attributes:
        metrics: By name.
        resampled: Of each metric, a value for each resample.

    >>> def mean_of(values):
    ...     return Evaluated.of(lambda w: {"mean": w @ values / w.sum()}, samples=4, resamples=200, seed=0)
    >>> a, b = mean_of(np.array([1.0, 2.0, 3.0, 6.0])), mean_of(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> a.intervals
    {'mean': (1.25, 4.5)}
    >>> a.minus(b)["mean"]
    {'value': 0.5, 'low': 0.0, 'high': 1.0}

    """

    metrics: dict[str, float]
    resampled: dict[str, Float[np.ndarray, "resample"]]

    @classmethod
    def of(
        cls, statistic: Callable[[Weights], Mapping[str, float]], samples: int, resamples: int, seed: int
    ) -> "Evaluated":
        """Evaluate a statistic of weighted samples; of fewer than `MIN_UNITS` there are no resamples, so no intervals.

        Args:
            statistic: The metrics by name, each sample counted as often as its weight says.
            samples: Number of samples, whose rows belong together.
            resamples: Bootstrap resamples; the same seed gives every predictor the same ones.
            seed: Of the resampling.

        """
        metrics = {name: float(value) for name, value in statistic(np.ones(samples)).items()}
        return cls(metrics, resampled_statistics(statistic, samples, resamples, seed))

    @property
    def intervals(self) -> dict[str, Interval]:
        """95 % percentile bootstrap intervals by metric, over samples."""
        return {name: percentile_interval(values.tolist()) for name, values in self.resampled.items()}

    def estimates(self) -> dict[str, dict[str, Any]]:
        """`value`, `low` and `high` by metric, as results.json records them."""
        return {name: Estimate(self.metrics[name], *bounds).as_dict() for name, bounds in self.intervals.items()}

    def minus(self, other: "Evaluated") -> dict[str, dict[str, Any]]:
        """Paired differences from another predictor of the same rows: both are evaluated on the same resamples."""
        found = {}
        for name, value in self.metrics.items():
            bounds = percentile_interval((self.resampled[name] - other.resampled[name]).tolist())
            found[name] = Estimate(value - other.metrics[name], *bounds).as_dict()
        return found


def differences(evaluated: Mapping[str, Evaluated], first: str = "probe") -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences of one predictor from every other: first minus other, by other and metric.

    >>> one, two = (Evaluated({"f1": value}, {"f1": np.array([value])}) for value in (0.75, 0.5))
    >>> differences({"probe": one, "static": two})
    {'static': {'f1': {'value': 0.25, 'low': 0.25, 'high': 0.25}}}

    """
    return {kind: evaluated[first].minus(other) for kind, other in evaluated.items() if kind != first}
