"""Confidence intervals: Wilson, bootstrap over samples, jackknife, and paired comparisons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]
"""Lower and upper bound of a 95 % confidence interval."""
Values = Float[NDArray[np.float64], "unit"]
Weights = Float[NDArray[np.float64], "unit"]
"""How often each unit (a sample, a prompt) counts."""


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap over samples, for 95 % intervals.

    Attributes:
        resamples: Number of resamples.
        seed: Of the resampling.

    >>> Bootstrap(resamples=200)
    Bootstrap(resamples=200, seed=0)

    """

    resamples: int = 1000
    seed: int = 0


def percentile_interval(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval: the 2.5th and 97.5th percentile of a statistic's resampled values.

    NaN values are left out; without any value both bounds are NaN.

    >>> percentile_interval([float(value) for value in range(101)])
    (2.5, 97.5)

    """
    low, high = np.nanpercentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def bootstrap_weights(units: int, resamples: int, seed: int) -> Float[NDArray[np.float64], "resample unit"]:
    """Bootstrap resamples as weights: how often each unit is in a sample of all units with replacement.

    Each resample is one sample of Multinomial(n, (1/n, …, 1/n)), so that statistics of sums over units copy no rows.

    Args:
        units: Number of units n.
        resamples: Number of resamples.
        seed: Of the resampling.

    >>> bootstrap_weights(4, resamples=2, seed=0)
    array([[1., 0., 0., 3.],
           [0., 2., 2., 0.]])

    """
    # Not scipy.stats.bootstrap: it samples indices, which gives other numbers for a seed, and takes no weights, so that
    # each resample of a precision-recall curve would sort all decisions again.
    if not units:
        return np.zeros((resamples, 0))
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    return counts.astype(np.float64)


def bootstrap(
    statistic: Callable[[Weights], Mapping[str, float]], units: int, resamples: int, seed: int
) -> dict[str, Interval]:
    """95 % percentile bootstrap intervals of named statistics, over units that are resampled whole.

    Args:
        statistic: The statistics by name, each unit counted as often as its weight says.
        units: Number of units (samples, whose rows belong together).
        resamples: Number of resamples; without any the bounds are NaN.
        seed: Of the resampling.

    >>> values = np.array([1.0, 2.0, 3.0, 6.0])
    >>> bootstrap(lambda weights: {"mean": weights @ values / weights.sum()}, len(values), resamples=200, seed=0)
    {'mean': (1.25, 4.5)}

    """
    resampled = [statistic(weights) for weights in bootstrap_weights(units, resamples, seed)]
    names = resampled[0] if resampled else statistic(np.ones(units))
    return {name: percentile_interval([values[name] for values in resampled]) for name in names}


def wilson(successes: int, n: int) -> Interval:
    """95 % Wilson score interval of a share, `successes` of `n`; NaN for n = 0.

    With p = successes / n and z = 1.96: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Source: Wilson (1927).

    >>> tuple(round(bound, 4) for bound in wilson(178, 200))
    (0.8391, 0.9262)

    """
    if n == 0:
        return float("nan"), float("nan")
    bounds = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def mean_interval(values: Values, share: bool, resamples: int, seed: int) -> Interval:
    """95 % interval of a mean: Wilson's for a share of 0/1 values, else the percentile bootstrap over prompts.

    Args:
        values: One for each prompt.
        share: Whether they are 0 or 1.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    >>> mean_interval(np.array([0.0, 0.2, 0.4, 1.0]), share=False, resamples=200, seed=0)
    (0.05, 0.7)

    """
    if share:
        return wilson(int(values.sum()), len(values))
    return _bootstrap_mean(values, resamples, seed)


def _bootstrap_mean(values: Values, resamples: int, seed: int) -> Interval:
    """All resampled means in one matrix product."""
    if not len(values):
        return percentile_interval([])
    return percentile_interval((bootstrap_weights(len(values), resamples, seed) @ values / len(values)).tolist())


@dataclass(frozen=True)
class PairedComparison:
    """Paired comparison of two conditions on the same prompts.

    Attributes:
        n: Prompts.
        difference: Mean of the first minus mean of the second.
        low, high: 95 % bootstrap interval of the difference, over prompts.
        more, less: Prompts on which the first is above, or below, the second.
        p: Exact McNemar p-value of a metric of 0 and 1; None for another metric.

    >>> PairedComparison(n=4, difference=0.5, low=0.0, high=1.0, more=2, less=0, p=0.5).as_dict()
    {'n': 4, 'difference': 0.5, 'low': 0.0, 'high': 1.0, 'more': 2, 'less': 0, 'p': 0.5}

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


def paired(first: Values, second: Values, resamples: int, seed: int) -> PairedComparison:
    """Paired bootstrap of the difference of two conditions' means, with McNemar's test where the metric is 0 or 1.

    Args:
        first: A metric of each prompt under the first condition.
        second: The same metric of the same prompts under the second condition.
        resamples: Of the bootstrap over prompts.
        seed: Of the bootstrap.

    >>> found = paired(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0]), resamples=200, seed=0)
    >>> found.difference, (found.low, found.high), (found.more, found.less), found.p
    (0.5, (0.0, 1.0), (2, 0), 0.5)

    """
    gaps = first - second
    low, high = _bootstrap_mean(gaps, resamples, seed)
    more, less = int((gaps > 0).sum()), int((gaps < 0).sum())
    binary = bool(np.isin(np.concatenate([first, second]), (0, 1)).all())
    return PairedComparison(
        n=len(gaps),
        difference=float(gaps.mean()) + 0.0 if len(gaps) else float("nan"),
        low=low,
        high=high,
        more=more,
        less=less,
        p=mcnemar(more, less) if binary else None,
    )


def mcnemar(more: int, less: int) -> float:
    """Two-sided exact McNemar p-value on the discordant pairs.

    Under the null hypothesis each discordant pair goes either way with probability ½:
    p = P(|X - n/2| ≥ |more - n/2|), X ~ Binomial(n, ½), n = more + less; 1 without a discordant pair. Source:
    McNemar (1947).

    Args:
        more: Prompts on which only the first condition succeeds.
        less: Prompts on which only the second one does.

    >>> mcnemar(9, 1)
    0.021484375

    """
    return float(stats.binomtest(more, more + less).pvalue) if more + less else 1.0


def jackknife(
    estimate: Float[NDArray[np.float64], "*metric"], left_out: Float[NDArray[np.float64], "group *metric"]
) -> tuple[Float[NDArray[np.float64], "*metric"], Float[NDArray[np.float64], "*metric"]]:
    """95 % delete-a-group jackknife intervals: estimate ± t · se.

    se² = (G - 1) / G · Σ (θ₋g - mean θ₋)², and t is the 97.5 % quantile of Student's t with G - 1 degrees of freedom.

    Args:
        estimate: The metrics on all samples.
        left_out: The same metrics with one group of samples left out in turn, G of them.

    Returns:
        Lower and upper bounds.

    >>> low, high = jackknife(np.array([2.0]), np.array([[1.9], [2.0], [2.1]]))
    >>> low.round(3), high.round(3)
    (array([1.503]), array([2.497]))

    """
    groups = len(left_out)
    squares = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt((groups - 1) / groups * squares)
    return np.asarray(estimate - half), np.asarray(estimate + half)
