"""Micro-averaged metrics against scikit-learn and torchmetrics, weights against copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, precision_recall_fscore_support
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
)

from probe.metrics import BinnedDecisions, RankedDecisions, best_threshold, constant_curve


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


@given(st.integers(0, 10_000), st.sampled_from([8, 64]))
@settings(max_examples=25)
def test_binned_counts_equal_torchmetrics_binned_curve(seed: int, bins: int) -> None:
    scores, labels, _ = data(seed)
    decisions = BinnedDecisions(5, bins)
    for part in (slice(0, 5), slice(5, 5), slice(5, 12)):  # counts add up over batches, also empty ones
        decisions.update(scores[part], labels[part])
    precision, recall, thresholds = binary_precision_recall_curve(
        scores.flatten(), labels.flatten().long(), thresholds=torch.arange(bins) / bins
    )
    curve = decisions.curve()
    assert curve.thresholds.tolist() == thresholds.flip(0).tolist()
    found = [curve.metrics(float(threshold)) for threshold in thresholds]
    assert [one.precision for one in found] == pytest.approx(precision[:-1].nan_to_num().tolist())  # 0 of 0
    assert [one.recall for one in found] == pytest.approx(recall[:-1].tolist())
    assert [count.tolist() for count in decisions.compute()[2:]] == [labels.sum(dim=0).tolist(), 12]


@given(st.integers(0, 10_000))
@settings(max_examples=10)
def test_binned_metrics_are_near_the_exact_ones(seed: int) -> None:
    """At a threshold between bins the metrics are exact; the best F1 and the average precision differ by little."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(300, 40, generator=generator) * 2 - 4
    labels = torch.rand(300, 40, generator=generator) < torch.sigmoid(1.2 * logits)
    scores, decisions = torch.sigmoid(logits), BinnedDecisions(40)
    decisions.update(scores, labels)
    exact, curve = RankedDecisions(scores, labels, torch.arange(300)), decisions.curve()
    same = exact.metrics(0.25), curve.metrics(0.25)
    assert (same[0].f1, same[0].precision, same[0].recall) == (same[1].f1, same[1].precision, same[1].recall)
    best = exact.metrics(exact.best_threshold()), curve.metrics(curve.best_threshold())
    assert best[0].f1 - 0.003 < best[1].f1 <= best[0].f1
    assert best[1].auprc == pytest.approx(best[0].auprc, abs=0.003)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_curve_of_constant_scores_is_that_of_all_rows(seed: int) -> None:
    scores, labels, _ = data(seed)
    rows = scores[0].expand(labels.shape)
    curve = constant_curve(scores[0], labels.sum(dim=0), len(labels))
    assert curve.best_threshold() == best_threshold(rows, labels)
    exact = RankedDecisions(rows, labels, torch.arange(12)).metrics(0.5)
    assert curve.metrics(0.5) == exact
