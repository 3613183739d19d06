"""95 % confidence intervals of a share and of a mean."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Interval = tuple[float, float]
"""Lower and upper bound of a 95 % confidence interval."""
MIN_UNITS = 3
"""Fewest units that are resampled: of one or two the bootstrap knows no spread, so that they get no interval."""


def percentile_interval(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval: the 2.5th and 97.5th percentile of a statistic's resampled values.

    NaN values are left out; without any value both bounds are NaN.

    >>> percentile_interval([float(value) for value in range(101)])
    (2.5, 97.5)

    """
    known = [value for value in values if not np.isnan(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
    return float(low), float(high)


def wilson(successes: int, n: int) -> Interval:
    """95 % Wilson score interval of a share, `successes` of `n`; NaN for n = 0.

    With p = successes / n and z = 1.96: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Source: Wilson (1927).

    >>> tuple(round(bound, 4) for bound in wilson(178, 200))
    (0.8391, 0.9262)

    """
    from scipy import stats  # here, since it takes half a second to import

    if n == 0:
        return float("nan"), float("nan")
    bounds = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def bootstrap_mean(values: Float[np.ndarray, "unit"], resamples: int = 1000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of a mean; NaN for fewer than `MIN_UNITS` values.

    One resample is in memory at a time: how often each value counts, a sample of Multinomial(n, (1/n, …, 1/n)).

    Args:
        values: One for each unit.
        resamples: Number of resamples.
        seed: Of the resampling.

    >>> bootstrap_mean(np.array([1.0, 2.0, 3.0, 6.0]), resamples=200)
    (1.25, 4.5)

    """
    if (units := len(values)) < MIN_UNITS:
        return float("nan"), float("nan")
    rng, shares = np.random.default_rng(seed), np.full(units, 1 / units)
    return percentile_interval([float(rng.multinomial(units, shares) @ values) / units for _ in range(resamples)])
