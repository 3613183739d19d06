"""CCA from moments against scikit-learn on rows; planted correlations; invariances; noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler

from datamodules import Pass
from probe.experiments.correlation import (
    CCASettings,
    HeldOutCCA,
    JointMoments,
    StepwiseCCA,
    canonical,
    cca,
    correlations_on,
    summary,
    whiten,
)

Array = NDArray[np.float64]
moments = JointMoments.of


def related(seed: int, rows: int = 3000, width: int = 12, heads: int = 9) -> tuple[Array, Array]:
    """Hidden-like rows with a strong scale spread, and 0/1 scores that partly follow them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) * rng.uniform(0.1, 10, width)
    logits = (x / x.std(0)) @ rng.normal(size=(width, heads)) + rng.normal(size=(rows, heads)) * 2
    return x, (logits > 1).astype(np.float64)


ALL = CCASettings(components=50, x_variance=1.0, y_variance=1.0)
"""Every component of either side, for exact laws."""


class A4:
    """A.4 by scikit-learn, word by word: the scores scaled to [0, 1], PCA of both sides, CCA."""

    def __init__(self, x: Array, y: Array, components: int, scale_x: bool = False) -> None:
        self.scale_x = MinMaxScaler().fit(x) if scale_x else None
        self.scale_y = MinMaxScaler().fit(y)
        self.pca_x, self.pca_y = PCA(0.95).fit(self.scaled(x)), PCA(0.99).fit(self.scale_y.transform(y))
        self.components = min(components, self.pca_x.n_components_, self.pca_y.n_components_)
        self.cca = CCA(self.components, scale=False, max_iter=5000, tol=1e-10).fit(*self.sides(x, y))

    def scaled(self, x: Array) -> Array:
        return x if self.scale_x is None else self.scale_x.transform(x)

    def sides(self, x: Array, y: Array) -> tuple[Array, Array]:
        return self.pca_x.transform(self.scaled(x)), self.pca_y.transform(self.scale_y.transform(y))

    def correlations(self, x: Array, y: Array) -> list[float]:
        left, right = self.cca.transform(*self.sides(x, y))
        return [float(np.corrcoef(left[:, i], right[:, i])[0, 1]) for i in range(self.components)]


@pytest.mark.parametrize("scale_x", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_scikit_learn(seed: int, scale_x: bool) -> None:
    x, y = related(seed)
    y = y * np.random.default_rng(seed).uniform(0.2, 3, y.shape[1])  # scaling matters on either side
    ours = canonical(moments(x, y), CCASettings(5, 0.95, 0.99, scale_x))
    theirs = A4(x, y, 5, scale_x)
    assert (ours.x_components, ours.y_components) == (theirs.pca_x.n_components_, theirs.pca_y.n_components_)
    number = theirs.components
    assert len(ours.correlations) == number
    np.testing.assert_allclose(ours.correlations, theirs.correlations(x, y), atol=1e-3)
    held_out = related(seed + 50)
    np.testing.assert_allclose(
        np.abs(correlations_on(ours, moments(*held_out))), np.abs(theirs.correlations(*held_out)), atol=5e-3
    )
    variates = (x - x.mean(0)) @ ours.x_weights, (y - y.mean(0)) @ ours.y_weights
    direct = [np.corrcoef(a, b)[0, 1] for a, b in zip(variates[0].T, variates[1].T, strict=True)]
    np.testing.assert_allclose(ours.correlations, direct, atol=1e-9)
    np.testing.assert_allclose(correlations_on(ours, moments(x, y)), direct, atol=1e-9)


def test_the_hidden_states_are_not_scaled_unless_asked_for() -> None:
    """A column of great range and little bearing: A.4 keeps it alone, scaling both sides keeps them all."""
    x, y = related(6)
    x[:, 0] *= 1e3
    found = {both: canonical(moments(x, y), CCASettings(scale_x=both)).x_components for both in (False, True)}
    assert found[False] == 1
    assert found[True] > 1


def stepwise(seed: int, rows: int = 2000, steps: int = 5) -> tuple[Array, Array, Array]:
    """Hidden states and scores that both follow the step number, and one another."""
    x, y = related(seed, rows)
    step = np.random.default_rng(seed).integers(0, steps, rows)
    centres = np.random.default_rng(77).normal(size=(steps, x.shape[1])) * x.std(0)
    rates = np.random.default_rng(78).random((steps, y.shape[1]))
    rhythm = np.random.default_rng(seed + 1).random(y.shape) < rates[step]
    return x + centres[step], np.maximum(y, rhythm), step


def test_step_numbers_alone_equal_scikit_learn_on_one_hot_columns() -> None:
    parts = [stepwise(seed) for seed in (0, 1)]
    one_hot = [np.eye(5)[step] for *_, step in parts]
    joint = [moments(np.hstack([x, s]), np.hstack([y, s])) for (x, y, _), s in zip(parts, one_hot, strict=True)]
    ours = StepwiseCCA(12, 9, CCASettings()).of_step(joint[0])
    theirs = A4(one_hot[0], parts[0][1], 50)
    np.testing.assert_allclose(ours.correlations, theirs.correlations(one_hot[0], parts[0][1]), atol=1e-3)
    np.testing.assert_allclose(
        np.abs(correlations_on(ours, joint[1])), np.abs(theirs.correlations(one_hot[1], parts[1][1])), atol=5e-3
    )


def test_within_a_step_equals_scikit_learn_on_deviations_from_the_training_means() -> None:
    (x, y, step), (x_new, y_new, step_new) = stepwise(0), stepwise(1)
    joint = [
        moments(np.hstack([a, np.eye(5)[s]]), np.hstack([b, np.eye(5)[s]]))
        for a, b, s in ((x, y, step), (x_new, y_new, step_new))
    ]
    ours = StepwiseCCA(12, 9, CCASettings()).within_step(joint[0])
    x_means, y_means = (np.array([side[step == n].mean(axis=0) for n in range(5)]) for side in (x, y))
    rows, new = (x - x_means[step], y - y_means[step]), (x_new - x_means[step_new], y_new - y_means[step_new])
    pca_x, pca_y = PCA(0.95).fit(rows[0]), PCA(0.99).fit(rows[1])  # scores of 0 and 1 are scaled already
    sides, others = ((pca_x.transform(a), pca_y.transform(b)) for a, b in (rows, new))
    number = min(pca_x.n_components_, pca_y.n_components_)
    assert len(ours.correlations) == number
    cca = CCA(number, scale=False, max_iter=5000, tol=1e-10).fit(*sides)
    for mine, (left, right) in (
        (ours.correlations, cca.transform(*sides)),
        (correlations_on(ours, joint[1]), cca.transform(*others)),
    ):
        theirs = [np.corrcoef(left[:, i], right[:, i])[0, 1] for i in range(number)]
        np.testing.assert_allclose(np.abs(mine), np.abs(theirs), atol=5e-3)


def test_hidden_states_are_analysed_as_without_the_columns_of_the_step_number() -> None:
    x, y, step = stepwise(2)
    one_hot = np.eye(5)[step]
    joint = moments(np.hstack([x, one_hot]), np.hstack([y, one_hot]))
    alone = canonical(moments(x, y), CCASettings())
    fit = StepwiseCCA(12, 9, CCASettings()).of_hidden(joint)
    np.testing.assert_allclose(fit.correlations, alone.correlations, atol=1e-12)
    np.testing.assert_allclose(correlations_on(fit, joint), alone.correlations, atol=1e-9)


def test_other_rows_are_evaluated_as_their_variates_correlate() -> None:
    x, y = related(2)
    fitted = canonical(moments(x[:2000], y[:2000]), CCASettings(4))
    u, v = x[2000:] @ fitted.x_weights, y[2000:] @ fitted.y_weights
    direct = [np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)]
    np.testing.assert_allclose(correlations_on(fitted, moments(x[2000:], y[2000:])), direct, atol=1e-9)


def test_a_planted_correlation_is_found_within_its_standard_error() -> None:
    rng, n, rho = np.random.default_rng(3), 20000, 0.6
    x, y = rng.normal(size=(n, 6)), rng.normal(size=(n, 4))
    y[:, 0] = rho * x[:, 0] + np.sqrt(1 - rho**2) * y[:, 0]
    found = canonical(moments(x @ rng.normal(size=(6, 6)), y @ rng.normal(size=(4, 4))), ALL)
    assert len(found.correlations) == 4  # fewer than asked for, and not padded
    assert found.correlations[0] == pytest.approx(rho, abs=3 * (1 - rho**2) / np.sqrt(n))
    assert found.correlations[1] < 0.05


def test_noise_correlates_within_its_fit_and_not_beyond() -> None:
    held_out = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
        fitted = canonical(moments(x[:200], y[:200]), ALL)
        assert fitted.correlations[0] > 0.4
        held_out.append(correlations_on(fitted, moments(x[200:], y[200:]))[0])
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / np.sqrt(30)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_rows_in_any_order_and_invertible_maps_of_either_side_change_nothing(seed: int) -> None:
    x, y = related(seed, 300, 5, 4)
    rng = np.random.default_rng(seed)
    base = canonical(moments(x, y), ALL).correlations
    order = rng.permutation(300)
    np.testing.assert_allclose(canonical(moments(x[order], y[order]), ALL).correlations, base, atol=1e-9)
    turn = [np.linalg.qr(rng.normal(size=(n, n)))[0] * rng.uniform(0.5, 2, n) for n in (5, 4)]
    np.testing.assert_allclose(canonical(moments(x @ turn[0], y @ turn[1]), ALL).correlations, base, atol=1e-6)


def test_columns_that_never_move_are_left_out() -> None:
    x, y = related(4)
    still = np.column_stack([x, np.full(len(x), 7.0)])
    assert not whiten(moments(still, y).xx, 1.0, np.ptp(still, axis=0))[-1].any()
    np.testing.assert_allclose(whiten(moments(still, y).xx, 1.0)[-1], 0, atol=1e-12)  # nothing divides it away
    for both in (False, True):
        fits = [canonical(moments(side, y), CCASettings(scale_x=both)).correlations for side in (still, x)]
        np.testing.assert_allclose(*fits)


def test_a_group_taken_away_leaves_the_moments_of_the_rest() -> None:
    x, y = related(5)
    rest, wanted = moments(x, y).without(moments(x[:800], y[:800])), moments(x[800:], y[800:])
    assert rest is not None
    assert rest.count == wanted.count
    for name in ("x_mean", "y_mean", "xx", "yy", "xy"):
        np.testing.assert_allclose(getattr(rest, name), getattr(wanted, name), rtol=1e-9, atol=1e-9)
    assert moments(x, y).without(moments(x, y)) is None


def test_nulls_take_the_principal_components_of_the_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same hidden states: decomposed once. A null that leaves out other rows has its own components."""
    x, y, step = stepwise(3)
    one_hot, order = np.eye(5)[step], np.random.default_rng(0).permutation(len(x))
    train = moments(np.hstack([x, one_hot]), np.hstack([y, one_hot]))
    null = moments(np.hstack([x, one_hot]), np.hstack([y[order], one_hot]))
    fewer = moments(np.hstack([x, one_hot])[7:], np.hstack([y[order], one_hot])[7:])
    rows = [summary(canonical(moments(x[k:], y[order][k:]), CCASettings()).correlations) for k in (0, 7)]
    alone = [summary(StepwiseCCA(12, 9, CCASettings()).of_hidden(part).correlations) for part in (null, fewer)]
    held_out, decomposed = HeldOutCCA(StepwiseCCA(12, 9, CCASettings())), list[int]()
    original = cca.whiten

    def spy(covariance: Array, *others: object) -> Array:
        decomposed.append(len(covariance))
        return original(covariance, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(cca, "whiten", spy)
    held_out.add(Pass("train"), [train])
    held_out.add(Pass("evaluation"), [train])
    assert sorted(decomposed) == [5, 9, 9, 12, 12]  # steps; scores, and within steps; hidden states likewise
    for repeat, (part, sizes) in enumerate(((null, [9]), (fewer, [12, 9]))):
        decomposed.clear()
        held_out.add(Pass("train", null="step", repeat=repeat), [part])
        assert decomposed == sizes
        found = held_out._found["null_step"][repeat][0]
        np.testing.assert_array_equal(found, alone[repeat])  # bit by bit what it is without sharing
        np.testing.assert_allclose(found, rows[repeat], rtol=1e-12)
