"""Areas under the ROC curve against scikit-learn, the paired test against DeLong's formula, thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from probe.attribution.grounding import ClusteredItems, auroc, paired_auroc_p, youden_threshold
from probe.attribution.grounding.roc import recalls
from probe.metrics import Bootstrap, bootstrap_weights

ITEMS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40)


def arrays(items: list[tuple[int, bool, int]]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    scores, labels, weights = zip(*items, strict=True)
    return np.array(scores, float), np.array(labels, bool), np.array(weights, float)


@given(ITEMS)
def test_auroc_is_that_of_scikit_learn_under_any_weights_and_ties(items: list[tuple[int, bool, int]]) -> None:
    scores, labels, weights = arrays(items)
    several = np.stack([weights, np.ones_like(weights)])
    for found, weight in zip(auroc(scores, labels, several), several, strict=True):
        if weight[labels].sum() and weight[~labels].sum():
            assert found == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight))
        else:
            assert np.isnan(found)


@given(ITEMS)
def test_the_threshold_has_the_largest_youden_index(items: list[tuple[int, bool, int]]) -> None:
    scores, labels, _ = arrays(items)
    if labels.all() or not labels.any():
        assert np.isnan(youden_threshold(scores, labels))
        return
    wrong, right, _ = roc_curve(labels, scores)
    found = youden_threshold(scores, labels)
    assert sum(recalls(scores, labels, found)) - 1 == pytest.approx((right - wrong).max())


def delong(first: NDArray[np.float64], second: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """p-value of DeLong, DeLong and Clarke-Pearson (1988), pair by pair."""

    def components(scores: NDArray[np.float64]) -> tuple[list[float], list[float]]:
        kernel = [[float(x > y) + (x == y) / 2 for y in scores[~labels]] for x in scores[labels]]
        return [float(np.mean(row)) for row in kernel], [float(np.mean(row)) for row in zip(*kernel, strict=True)]

    (one, other), (third, fourth) = components(first), components(second)
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (np.cov([one, third]) / len(one) + np.cov([other, fourth]) / len(other)) @ contrast
    return float(2 * stats.norm.sf(abs(np.mean(one) - np.mean(third)) / np.sqrt(variance)))


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_test_of_single_items_is_delongs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(30) < 0.4
    first, second = rng.normal(size=30) + labels, rng.integers(0, 4, 30).astype(float)
    assert paired_auroc_p(first, second, labels, np.arange(30)) == pytest.approx(delong(first, second, labels))


def test_the_paired_test_holds_its_level_with_dependent_items() -> None:
    """Scores of equal merit, whose errors are those of the question: one in twenty is significant, not one in three."""
    rng, small = np.random.default_rng(0), 0
    question = np.repeat(np.arange(60), 8)
    for _ in range(300):
        labels = np.tile([True, False], 240)
        first, second = (
            labels + rng.normal(size=60)[question] * np.where(labels, 1, -1) + rng.normal(size=480) for _ in range(2)
        )
        small += paired_auroc_p(first, second, labels, question) < 0.05
    assert 4 <= small <= 30
    assert paired_auroc_p(first, first, labels, question) == 1


def test_intervals_resample_questions_and_differences_are_paired() -> None:
    rng = np.random.default_rng(1)
    question = np.repeat(np.arange(20), 3)
    labels = np.tile([True, False, True], 20)
    scores = {name: labels * merit + rng.normal(size=60) for name, merit in (("a", 1.5), ("b", 0.2))}
    items, settings = ClusteredItems(scores, labels, question), Bootstrap(resamples=40)
    weights = bootstrap_weights(20, 40, 0)
    areas = {
        name: [roc_auc_score(labels, values, sample_weight=row[question]) for row in weights]
        for name, values in scores.items()
    }
    cell = items.areas(settings)["a"]
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(np.percentile(areas["a"], [2.5, 97.5])))
    assert cell["n"] == 20
    (pair,) = items.differences(settings, "a", ["b"])
    gaps = np.array(areas["a"]) - np.array(areas["b"])
    assert (pair["low"], pair["high"]) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])))
    assert pair["difference"] == pytest.approx(roc_auc_score(labels, scores["a"]) - roc_auc_score(labels, scores["b"]))
    none = items.chosen(labels)
    assert np.isnan(none.areas(settings)["a"]["value"])
    assert np.isnan(none.differences(settings, "a", ["b"])[0]["p"])
