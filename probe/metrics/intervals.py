"""Confidence intervals: Wilson, bootstrap over samples, jackknife, and paired tests."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats


def interval(values: list[float]) -> tuple[float, float]:
    """The middle 95 % of bootstrap values."""
    low, high = np.nanpercentile(values, [2.5, 97.5]) if values else (np.nan, np.nan)
    return float(low), float(high)


Array = NDArray[np.float64]
Values = Float[Array, "prompt"]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share."""
    if n == 0:
        return float("nan"), float("nan")
    bounds = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def mean_interval(values: Values, share: bool, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval of a mean: Wilson's for a `share` of values that are 0 or 1, else the bootstrap over prompts."""
    if share:
        return wilson(int(values.sum()), len(values))
    return interval(_resampled_means(values, resamples, seed))


def _resampled_means(values: Values, resamples: int, seed: int) -> list[float]:
    if not len(values):
        return []
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    means: list[float] = (counts @ values / len(values)).tolist()
    return means


@dataclass(frozen=True)
class Paired:
    """Two conditions on the same prompts.

    Attributes:
        n: Prompts.
        difference: Mean of the first minus mean of the second.
        low, high: 95 % bootstrap interval of the difference, over prompts.
        more, less: Prompts on which the first is above, or below, the second.
        p: Exact McNemar test of a metric of 0 and 1; None for another metric.

    """

    n: int
    difference: float
    low: float
    high: float
    more: int
    less: int
    p: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def paired(first: Values, second: Values, resamples: int, seed: int) -> Paired:
    """Compare two conditions, prompt by prompt."""
    gaps = first - second
    low, high = interval(_resampled_means(gaps, resamples, seed))
    more, less = int((gaps > 0).sum()), int((gaps < 0).sum())
    binary = bool(np.isin(np.concatenate([first, second]), (0, 1)).all())
    return Paired(
        n=len(gaps),
        difference=float(gaps.mean()) + 0.0 if len(gaps) else float("nan"),
        low=low,
        high=high,
        more=more,
        less=less,
        p=mcnemar(more, less) if binary else None,
    )


def mcnemar(more: int, less: int) -> float:
    """Exact p: as lopsided a division of the prompts that tell two conditions apart, by chance. 1 without any."""
    return float(stats.binomtest(more, more + less).pvalue) if more + less else 1.0


def jackknife(
    estimate: Float[Array, "*figure"], left_out: Float[Array, "group *figure"]
) -> tuple[Float[Array, "*figure"], Float[Array, "*figure"]]:
    """95 % intervals: estimate ± t · se, with se² = (G - 1) / G · Σ (θ₋g - mean θ₋)² and G - 1 degrees of freedom.

    Args:
        estimate: The figures on all samples.
        left_out: The same figures with one group of samples left out in turn, G of them.

    Returns:
        Lower and upper bounds.

    """
    groups = len(left_out)
    spread = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * spread)
    return estimate - half, estimate + half
