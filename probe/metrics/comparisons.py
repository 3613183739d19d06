"""Paired comparisons of conditions on the same prompts: differences, tests, Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from probe.metrics.formatting import Estimate
from probe.metrics.intervals import Bootstrap, Cells, percentile_interval, resampled_means

PERMUTATIONS = 9999
"""Random signs of the permutation test; all 2^n signs where these are fewer."""


@dataclass(frozen=True)
class PairedComparison:
    """Paired comparison of two conditions on the same prompts by one metric.

    Attributes:
        n: Prompts.
        difference: Mean of the first minus mean of the second.
        low, high: 95 % bootstrap interval of the difference, over prompts (and random sets).
        more, less: Prompts on which the first is above, or below, the second.
        p: Two-sided p-value of this metric (see `paired_p`); None without a prompt.

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


def paired(first: Cells, second: Cells, bootstrap: Bootstrap = Bootstrap()) -> PairedComparison:  # noqa: B008 (frozen)
    """Difference of two conditions' means on the same prompts, with interval and p-value.

    Args:
        first: A metric of each prompt under the first condition; of each random set and prompt, if it has several.
        second: The same metric of the same prompts under the second condition.
        bootstrap: Settings of the resampling; its seed is that of the permutations, too.

    >>> found = paired(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0]), Bootstrap(resamples=200))
    >>> found.difference, (found.low, found.high), (found.more, found.less), found.p
    (0.5, (0.0, 1.0), (2, 0), 0.5)

    """
    gaps = np.atleast_2d(first).mean(axis=0) - np.atleast_2d(second).mean(axis=0)
    resampled = resampled_means(first, bootstrap, stream=1) - resampled_means(second, bootstrap, stream=2)
    low, high = percentile_interval(resampled.tolist())
    return PairedComparison(
        n=len(gaps),
        difference=float(gaps.mean()) + 0.0 if len(gaps) else float("nan"),
        low=low,
        high=high,
        more=int((gaps > 0).sum()),
        less=int((gaps < 0).sum()),
        p=paired_p(gaps, bootstrap.seed) if len(gaps) else None,
    )


def paired_p(gaps: Float[np.ndarray, "unit"], seed: int = 0) -> float:
    """Two-sided p-value of the paired sign-flip permutation test; 1 where no prompt differs.

    Under the null hypothesis the two conditions are exchangeable on each prompt, so that each difference has either
    sign with probability ½; the statistic is the mean difference. For a metric of 0 and 1 that is the exact McNemar
    test (see `mcnemar`), without sampling.

    Args:
        gaps: First minus second condition, for each prompt.
        seed: Of the sampled signs.

    >>> paired_p(np.array([1.0, 1.0, -1.0, 0.0])), paired_p(np.array([0.2, 0.1, 0.4, 0.3]))
    (1.0, 0.125)

    """
    known = gaps[gaps != 0]
    if not len(known):
        return 1.0
    if np.ptp(np.abs(known)) == 0:
        return mcnemar(int((known > 0).sum()), int((known < 0).sum()))
    # `random_state` is the name of the argument in every release that we support.
    found = stats.permutation_test(
        (known,), np.mean, permutation_type="samples", n_resamples=PERMUTATIONS, batch=1000, random_state=seed
    )
    return float(found.pvalue)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for a family of tests by Holm's step-down method.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎ the corrected one is max over j ≤ i of min(1, (m - j + 1) p₍ⱼ₎). Source: Holm (1979).

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in corrected]


def compare_conditions(
    values: Mapping[str, Cells], metric: str, reference: str, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Paired comparisons of every two conditions by one metric, on the prompts that both have a value of.

    Those with the reference are one family: `p_holm` is their p-value after Holm's correction, None for other pairs.
    A pair without a common prompt is not tested: it has no p-value and does not count in the family.

    Args:
        values: The metric under each condition, of each prompt, or of each random set and prompt; NaN where missing.
        metric: Its name.
        reference: Name of the condition that the others are compared with.
        bootstrap: Its settings.

    >>> values = {"a": np.array([1.0, 1, 1, 1]), "b": np.array([0.0, 0, 0, 1]), "c": np.array([1.0, 0, 1, 0])}
    >>> [(one["second"], one["p"], one["p_holm"]) for one in compare_conditions(values, "em", "a", Bootstrap(100))]
    [('b', 0.25, 0.5), ('c', 0.5, 0.5), ('c', 1.0, None)]

    """
    pairs = []
    for (first, one), (second, other) in combinations(values.items(), 2):
        both = np.isfinite(np.atleast_2d(one)).all(axis=0) & np.isfinite(np.atleast_2d(other)).all(axis=0)
        found = paired(one[..., both], other[..., both], bootstrap)
        pairs.append({"first": first, "second": second, "metric": metric, **found.as_dict(), "p_holm": None})
    family = [pair for pair in pairs if reference in (pair["first"], pair["second"]) and pair["n"]]
    for pair, corrected in zip(family, holm([pair["p"] for pair in family]), strict=True):
        pair["p_holm"] = corrected
    return pairs


def paired_difference(pairs: Sequence[dict[str, Any]], first: str, second: str, metric: str) -> dict[str, Any]:
    """The paired comparison of two conditions by a metric, as first minus second.

    Raises:
        KeyError: the two were not compared by it.

    >>> pair = {"first": "none", "second": "dynamic", "metric": "accuracy", "difference": 0.5, "low": 0.2, "high": 0.8}
    >>> found = paired_difference([{**pair, "more": 4, "less": 1, "p": 0.375}], "dynamic", "none", "accuracy")
    >>> found["difference"], (found["low"], found["high"]), (found["more"], found["less"])
    (-0.5, (-0.8, -0.2), (1, 4))

    """
    for pair in pairs:
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (first, second):
            return pair
        if pair["metric"] == metric and (pair["first"], pair["second"]) == (second, first):
            keys = {"difference": "difference", "low": "high", "high": "low"}
            turned = {key: None if pair[of] is None else 0.0 - pair[of] for key, of in keys.items()}
            return {**pair, "first": first, "second": second, **turned, "more": pair["less"], "less": pair["more"]}
    raise KeyError(first, second, metric)


def difference_text(pair: Mapping[str, Any]) -> str:
    """A paired difference with its interval, p and corrected p.

    >>> difference_text({"difference": -0.0312, "low": -0.07, "high": 0.008, "p": 0.0212, "p_holm": 0.09})
    '-0.031 [-0.07, +0.01], p 0.02, Holm 0.09'

    """
    estimate = Estimate(pair["difference"], pair["low"], pair["high"])
    return ", ".join(filter(None, (estimate.text(3, 2, sign=True), p_text(pair))))


def p_text(pair: Mapping[str, Any]) -> str:
    """The p-value of a comparison, and the corrected one where it belongs to a family; empty without.

    >>> p_text({"p": 1e-7, "p_holm": 2e-7}), p_text({"p": None})
    ('p 1e-07, Holm 2e-07', '')

    """
    named = (("p", pair["p"]), ("Holm", pair.get("p_holm")))
    return ", ".join(f"{name} {value:.1g}" for name, value in named if value is not None)
