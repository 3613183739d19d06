"""Intervals and tests against their formulas and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.metrics import Bootstrap, bootstrap, bootstrap_weights, mean_interval, resampled_means, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (178, 200)])
def test_wilson_equals_its_formula(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(successes, n) == pytest.approx((max(0.0, centre - half), min(1.0, centre + half)), abs=1e-9)


def test_nothing_gives_nan() -> None:
    assert all(
        math.isnan(bound) for bound in (*wilson(0, 0), *mean_interval(np.array([0.5])[:0], False, Bootstrap(10)))
    )


def test_shares_get_wilson_and_other_means_the_bootstrap() -> None:
    assert mean_interval(np.array([1.0, 0, 1, 1]), True, Bootstrap(100)) == wilson(3, 4)
    assert mean_interval(np.zeros(9), False, Bootstrap(100)) == (0, 0)
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = mean_interval(values, False, Bootstrap(2000))
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.05)


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_resamples_are_successive_multinomial_samples(units: int, resamples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one_by_one = [rng.multinomial(units, np.full(units, 1 / units)) for _ in range(resamples)]
    np.testing.assert_array_equal(bootstrap_weights(units, resamples, seed), one_by_one)


@given(st.integers(3, 30), st.integers(0, 2**32 - 1))
def test_bootstrap_intervals_are_percentiles_over_copied_units(units: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=units)
    copies = [np.repeat(values, weights.astype(int)) for weights in bootstrap_weights(units, 50, seed)]
    means = [copy.mean() for copy in copies]
    assert all(len(copy) == units for copy in copies)
    found = bootstrap(lambda weights: {"mean": float(np.average(values, weights=weights))}, units, 50, seed)
    assert found["mean"] == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert mean_interval(values, False, Bootstrap(50, seed)) == pytest.approx(found["mean"])


def test_without_resamples_the_bounds_are_nan() -> None:
    found = bootstrap(lambda weights: {"sum": float(weights.sum())}, 4, 0, 0)
    assert all(math.isnan(bound) for bound in found["sum"])


@pytest.mark.parametrize("units", [1, 2])
def test_one_or_two_units_have_no_bootstrap_interval(units: int) -> None:
    values = np.arange(units, dtype=float)
    found = bootstrap(lambda weights: {"mean": float(weights @ values)}, units, 50, 0)["mean"]
    assert all(math.isnan(bound) for bound in (*found, *mean_interval(values, False, Bootstrap(50))))
    assert not any(math.isnan(bound) for bound in wilson(1, units))


@given(st.integers(2, 6), st.integers(3, 20), st.integers(0, 2**32 - 1))
def test_sets_and_prompts_are_resampled_as_copies(sets: int, units: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(sets, units))
    rows, columns = (bootstrap_weights(*args) for args in ((sets, 9, (seed, 1)), (units, 9, seed)))
    copied = [
        np.repeat(np.repeat(values, row.astype(int), axis=0), column.astype(int), axis=1).mean()
        for row, column in zip(rows, columns, strict=True)
    ]
    np.testing.assert_allclose(resampled_means(values, Bootstrap(9, seed)), copied)


def test_sets_that_agree_on_every_prompt_get_wilsons_interval() -> None:
    assert mean_interval(np.ones((5, 20)), True, Bootstrap(100)) == wilson(20, 20)
