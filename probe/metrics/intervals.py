"""95 % confidence intervals: Wilson, bootstrap over samples (and random sets), jackknife."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from extract.intervals import MIN_UNITS as MIN_UNITS  # noqa: PLC0414 (public here, too)
from extract.intervals import Interval as Interval  # noqa: PLC0414
from extract.intervals import percentile_interval as percentile_interval  # noqa: PLC0414
from extract.intervals import wilson as wilson  # noqa: PLC0414
from extract.utils import Resamples, Seed, check_fields

Values = Float[np.ndarray, "unit"]
Weights = Float[np.ndarray, "unit"]
"""How often each unit (a sample, a prompt) counts."""
Cells = Float[np.ndarray, "unit"] | Float[np.ndarray, "set unit"]
"""A metric of each prompt; or of each random set of heads and prompt."""


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap over samples, for 95 % intervals.

    Attributes:
        resamples: Number of resamples.
        seed: Of the resampling.

    >>> Bootstrap(resamples=200)
    Bootstrap(resamples=200, seed=0)

    """

    resamples: Resamples = 1000
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


def bootstrap_weights(units: int, resamples: int, seed: int | tuple[int, ...]) -> Float[np.ndarray, "resample unit"]:
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

    Bounds are NaN for fewer than `MIN_UNITS` units, and without resamples.

    Args:
        statistic: The statistics by name, each unit counted as often as its weight says.
        units: Number of units (samples, whose rows belong together).
        resamples: Number of resamples.
        seed: Of the resampling.

    >>> values = np.array([1.0, 2.0, 3.0, 6.0])
    >>> bootstrap(lambda weights: {"mean": weights @ values / weights.sum()}, len(values), resamples=200, seed=0)
    {'mean': (1.25, 4.5)}

    """
    found = resampled_statistics(statistic, units, resamples, seed)
    return {name: percentile_interval(values.tolist()) for name, values in found.items()}


def resampled_statistics(
    statistic: Callable[[Weights], Mapping[str, float]], units: int, resamples: int, seed: int
) -> dict[str, Float[np.ndarray, "resample"]]:
    """Values of named statistics under each bootstrap resample; none for fewer than `MIN_UNITS` units.

    Args:
        statistic: The statistics by name, each unit counted as often as its weight says.
        units: Number of units (samples, whose rows belong together).
        resamples: Number of resamples; the same seed gives every statistic the same ones.
        seed: Of the resampling.

    >>> values = np.array([1.0, 2.0, 3.0, 6.0])
    >>> resampled_statistics(lambda weights: {"sum": float(weights @ values)}, len(values), resamples=2, seed=0)
    {'sum': array([19., 10.])}

    """
    found = [statistic(weights) for weights in bootstrap_weights(units, resamples if units >= MIN_UNITS else 0, seed)]
    names = found[0] if found else statistic(np.ones(units))
    return {name: np.array([float(values[name]) for values in found]) for name in names}


def mean_interval(values: Cells, share: bool, bootstrap: Bootstrap) -> Interval:
    """95 % interval of a mean: Wilson's for a share of 0/1 values, else the percentile bootstrap over prompts.

    Values of several random sets on the same prompts are resampled along both axes, so that the interval contains the
    variance between sets, too (see `resampled_means`); Wilson's over prompts where all values are equal, for resampling
    sees no spread there. The bootstrap of fewer than `MIN_UNITS` prompts is NaN.

    Args:
        values: One for each prompt; one for each set and prompt.
        share: Whether they are 0 or 1.
        bootstrap: Its settings.

    >>> mean_interval(np.array([0.0, 0.2, 0.4, 1.0]), share=False, bootstrap=Bootstrap(200))
    (0.05, 0.7)

    """
    grid = np.atleast_2d(values)
    if share and (len(grid) == 1 or (grid == grid.flat[:1]).all()):
        return wilson(int(grid[0].sum()), grid.shape[1])
    return percentile_interval(resampled_means(grid, bootstrap).tolist())


def resampled_means(values: Cells, bootstrap: Bootstrap, stream: int = 1) -> Float[np.ndarray, "resample"]:
    """Bootstrap means over prompts, and over random sets where there are several; none for too few prompts.

    Each axis is resampled with replacement, independently: the pigeonhole bootstrap for crossed random effects
    (Owen 2007). Prompts are resampled alike for every array of as many prompts, as paired comparisons need.

    Args:
        values: One for each prompt; one for each set and prompt.
        bootstrap: Its settings.
        stream: Of the random numbers that resample sets: another one for independent sets.

    >>> resampled_means(np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]), Bootstrap(resamples=3)).round(2)
    array([0.67, 0.5 , 0.33])

    """
    grid = np.atleast_2d(values)
    sets, units = grid.shape
    if units < MIN_UNITS:
        return np.zeros(0)
    prompts = bootstrap_weights(units, bootstrap.resamples, bootstrap.seed) / units
    if sets == 1:
        return np.asarray(prompts @ grid[0])
    weights = bootstrap_weights(sets, bootstrap.resamples, (bootstrap.seed, stream)) / sets
    return np.asarray(((weights @ grid) * prompts).sum(axis=1))


def jackknife(
    estimate: Float[np.ndarray, "*metric"], left_out: Float[np.ndarray, "group *metric"]
) -> tuple[Float[np.ndarray, "*metric"], Float[np.ndarray, "*metric"]]:
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
