"""Intervals and tests against their formulas and brute force."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.metrics import bootstrap, bootstrap_weights, mcnemar, mean_interval, paired, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (178, 200)])
def test_wilson_equals_its_formula(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(successes, n) == pytest.approx((max(0.0, centre - half), min(1.0, centre + half)), abs=1e-9)


def test_nothing_gives_nan() -> None:
    assert all(math.isnan(bound) for bound in (*wilson(0, 0), *mean_interval(np.array([0.5])[:0], False, 10, 0)))


@pytest.mark.parametrize(("more", "less"), [(0, 0), (5, 0), (4, 2), (3, 3), (0, 9)])
def test_mcnemar_equals_counting_all_signs(more: int, less: int) -> None:
    """Under the null each prompt that tells the two apart falls on either side with chance one half."""
    n, gap = more + less, abs(more - less)
    outcomes = [sum(signs) for signs in product((-1, 1), repeat=n)]
    assert mcnemar(more, less) == pytest.approx(sum(abs(total) >= gap for total in outcomes) / 2**n)


def test_shares_get_wilson_and_other_means_the_bootstrap() -> None:
    assert mean_interval(np.array([1.0, 0, 1, 1]), True, 100, 0) == wilson(3, 4)
    assert mean_interval(np.zeros(9), False, 100, 0) == (0, 0)
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = mean_interval(values, False, 2000, 0)
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.05)


def test_pairs_use_that_the_prompts_are_the_same() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(300)
    found = paired(hard, hard - 0.01, 500, 0)
    assert (found.difference, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))
    assert (found.n, found.more, found.less, found.p) == (300, 300, 0, None)
    right, wrong = (hard > 0.2).astype(float), (hard > 0.5).astype(float)
    turned = paired(wrong, right, 500, 0)
    assert turned.more == 0 and turned.less == int(((hard > 0.2) & (hard <= 0.5)).sum())
    assert turned.p == mcnemar(0, turned.less)
    assert turned.low < turned.difference < turned.high < 0


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_resamples_are_successive_multinomial_samples(units: int, resamples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one_by_one = [rng.multinomial(units, np.full(units, 1 / units)) for _ in range(resamples)]
    np.testing.assert_array_equal(bootstrap_weights(units, resamples, seed), one_by_one)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_bootstrap_intervals_are_percentiles_over_copied_units(units: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=units)
    copies = [np.repeat(values, weights.astype(int)) for weights in bootstrap_weights(units, 50, seed)]
    means = [copy.mean() for copy in copies]
    assert all(len(copy) == units for copy in copies)
    found = bootstrap(lambda weights: {"mean": float(np.average(values, weights=weights))}, units, 50, seed)
    assert found["mean"] == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert mean_interval(values, False, 50, seed) == pytest.approx(found["mean"])


def test_without_resamples_the_bounds_are_nan() -> None:
    found = bootstrap(lambda weights: {"sum": float(weights.sum())}, 4, 0, 0)
    assert all(math.isnan(bound) for bound in found["sum"])
