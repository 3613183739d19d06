"""CCA from moments against scikit-learn on rows; planted correlations; invariances; noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler

from probe.experiments.correlation import JointMoments, canonical, correlations_on, whiten

Array = NDArray[np.float64]
moments = JointMoments.of


def related(seed: int, rows: int = 3000, width: int = 12, heads: int = 9) -> tuple[Array, Array]:
    """Hidden-like rows with a strong scale spread, and 0/1 scores that partly follow them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) * rng.uniform(0.1, 10, width)
    logits = (x / x.std(0)) @ rng.normal(size=(width, heads)) + rng.normal(size=(rows, heads)) * 2
    return x, (logits > 1).astype(np.float64)


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_scikit_learn(seed: int) -> None:
    x, y = related(seed)
    ours = canonical(moments(x, y), 5, 0.95, 0.99)
    sides = [PCA(share).fit_transform(MinMaxScaler().fit_transform(side)) for share, side in ((0.95, x), (0.99, y))]
    assert (ours.x_components, ours.y_components) == (sides[0].shape[1], sides[1].shape[1])
    left, right = CCA(5, scale=False, max_iter=5000, tol=1e-10).fit(*sides).transform(*sides)
    theirs = [np.corrcoef(left[:, i], right[:, i])[0, 1] for i in range(5)]
    np.testing.assert_allclose(ours.correlations, theirs, atol=1e-3)
    variates = (x - x.mean(0)) @ ours.x_weights, (y - y.mean(0)) @ ours.y_weights
    direct = [np.corrcoef(a, b)[0, 1] for a, b in zip(variates[0].T, variates[1].T, strict=True)]
    np.testing.assert_allclose(ours.correlations, direct, atol=1e-9)
    np.testing.assert_allclose(correlations_on(ours, moments(x, y)), direct, atol=1e-9)


def test_other_rows_are_evaluated_as_their_variates_correlate() -> None:
    x, y = related(2)
    fitted = canonical(moments(x[:2000], y[:2000]), 4, 0.95, 0.99)
    u, v = x[2000:] @ fitted.x_weights, y[2000:] @ fitted.y_weights
    direct = [np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)]
    np.testing.assert_allclose(correlations_on(fitted, moments(x[2000:], y[2000:])), direct, atol=1e-9)


def test_a_planted_correlation_is_found_within_its_standard_error() -> None:
    rng, n, rho = np.random.default_rng(3), 20000, 0.6
    x, y = rng.normal(size=(n, 6)), rng.normal(size=(n, 4))
    y[:, 0] = rho * x[:, 0] + np.sqrt(1 - rho**2) * y[:, 0]
    found = canonical(moments(x @ rng.normal(size=(6, 6)), y @ rng.normal(size=(4, 4))), 50, 1.0, 1.0)
    assert len(found.correlations) == 4  # fewer than asked for, and not padded
    assert found.correlations[0] == pytest.approx(rho, abs=3 * (1 - rho**2) / np.sqrt(n))
    assert found.correlations[1] < 0.05


def test_noise_correlates_within_its_fit_and_not_beyond() -> None:
    held_out = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
        fitted = canonical(moments(x[:200], y[:200]), 1, 1.0, 1.0)
        assert fitted.correlations[0] > 0.4
        held_out.append(correlations_on(fitted, moments(x[200:], y[200:]))[0])
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / np.sqrt(30)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_rows_in_any_order_and_invertible_maps_of_either_side_change_nothing(seed: int) -> None:
    x, y = related(seed, 300, 5, 4)
    rng = np.random.default_rng(seed)
    base = canonical(moments(x, y), 4, 1.0, 1.0).correlations
    order = rng.permutation(300)
    np.testing.assert_allclose(canonical(moments(x[order], y[order]), 4, 1.0, 1.0).correlations, base, atol=1e-9)
    turn = [np.linalg.qr(rng.normal(size=(n, n)))[0] * rng.uniform(0.5, 2, n) for n in (5, 4)]
    np.testing.assert_allclose(canonical(moments(x @ turn[0], y @ turn[1]), 4, 1.0, 1.0).correlations, base, atol=1e-6)


def test_columns_that_never_move_are_left_out() -> None:
    x, y = related(4)
    still = np.column_stack([x, np.full(len(x), 7.0)])
    weights = whiten(moments(still, y).xx, np.ptp(still, axis=0), 1.0)
    assert not weights[-1].any()
    np.testing.assert_allclose(
        canonical(moments(still, y), 3, 0.95, 0.99).correlations, canonical(moments(x, y), 3, 0.95, 0.99).correlations
    )


def test_a_group_taken_away_leaves_the_moments_of_the_rest() -> None:
    x, y = related(5)
    rest, wanted = moments(x, y).without(moments(x[:800], y[:800])), moments(x[800:], y[800:])
    assert rest is not None
    assert rest.count == wanted.count
    for name in ("x_mean", "y_mean", "xx", "yy", "xy"):
        np.testing.assert_allclose(getattr(rest, name), getattr(wanted, name), rtol=1e-9, atol=1e-9)
    assert moments(x, y).without(moments(x, y)) is None
