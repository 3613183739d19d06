"""Micro-averaged metrics against scikit-learn and torchmetrics, weights against copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, precision_recall_fscore_support
from torchmetrics.functional.classification import binary_average_precision

from probe.metrics import RankedDecisions, best_threshold


def data(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((12, 5)), 1).astype(np.float32)  # coarse: many ties
    labels = rng.random((12, 5)) < 0.3
    labels[0, 0] = True
    return torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(np.sort(rng.integers(0, 4, 12)))


@given(st.integers(0, 10_000))
@settings(max_examples=50)
def test_metrics_equal_scikit_learn(seed: int) -> None:
    scores, labels, sample = data(seed)
    threshold = best_threshold(scores, labels)
    mine = RankedDecisions(scores, labels, sample).metrics(threshold)
    flat, truth = scores.flatten().numpy(), labels.flatten().numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, flat >= np.float32(threshold), average="binary", zero_division=0
    )
    assert (mine.precision, mine.recall, mine.f1) == pytest.approx((precision, recall, f1))
    assert mine.auprc == pytest.approx(average_precision_score(truth, flat))
    assert mine.auprc == pytest.approx(binary_average_precision(scores.flatten(), labels.flatten().long()).item())


@given(st.integers(0, 10_000))
@settings(max_examples=50)
def test_threshold_is_that_of_scikit_learns_curve(seed: int) -> None:
    scores, labels, _ = data(seed)
    precision, recall, thresholds = precision_recall_curve(labels.flatten().numpy(), scores.flatten().numpy())
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    assert best_threshold(scores, labels) == float(thresholds[np.argmax(f1[:-1])])


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_threshold_has_the_highest_f1_of_all(seed: int) -> None:
    scores, labels, sample = data(seed)
    ranked = RankedDecisions(scores, labels, sample)
    best = ranked.metrics(best_threshold(scores, labels)).f1
    assert best == pytest.approx(max(ranked.metrics(float(t)).f1 for t in scores.unique()))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_weight_of_a_sample_is_so_many_copies_of_it(seed: int) -> None:
    scores, labels, sample = data(seed)
    units = sample.unique().tolist()
    weights = np.random.default_rng(seed).integers(0, 3, len(units)).astype(float)
    weights[units.index(int(sample[0]))] = 2.0  # the sure positive is drawn
    rows = torch.cat([torch.nonzero(sample == u)[:, 0].repeat(int(w)) for u, w in zip(units, weights, strict=True)])
    weighted = RankedDecisions(scores, labels, sample).metrics(0.5, weights)
    copied = RankedDecisions(scores[rows], labels[rows], sample[rows]).metrics(0.5)
    assert tuple(weighted.as_dict().values()) == pytest.approx(tuple(copied.as_dict().values()))


def test_intervals_hold_the_value_and_are_seeded() -> None:
    scores, labels, sample = data(3)
    ranked = RankedDecisions(scores, labels, sample)
    low, high = ranked.evaluated(0.5, 100, seed=1).intervals["f1"]
    assert low <= ranked.metrics(0.5).f1 <= high
    assert ranked.evaluated(0.5, 100, seed=1).intervals["f1"] == (low, high)


def test_no_positive_label_gives_no_curve() -> None:
    scores = torch.rand(3, 2)
    assert best_threshold(scores, torch.zeros(3, 2, dtype=torch.bool)) == 1.0
