"""Heads that wake up: decisions and metrics against loops over steps and heads, and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from probe.metrics import Evaluated, differences, wake_up_decisions, wake_up_pairs, wake_up_threshold


def rows(seed: int, missing: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Current and later scores, coarse predictions, sample numbers."""
    rng = np.random.default_rng(seed)
    current, later, predicted = (np.round(rng.random((14, 5)), 1).astype(np.float32) for _ in range(3))
    if missing:
        current[rng.random((14, 5)) < 0.1] = np.nan
        later[rng.random((14, 5)) < 0.1] = np.nan
    sample = torch.from_numpy(np.sort(rng.integers(0, 4, 14)))
    return torch.from_numpy(current), torch.from_numpy(later), torch.from_numpy(predicted), sample


def slow_decisions(
    current: torch.Tensor, later: torch.Tensor, predicted: torch.Tensor, from_score: float
) -> tuple[list[float], list[bool]]:
    """Prediction and truth of each head at each step that it could wake up from."""
    values, truth = [], []
    for row in range(len(current)):
        for head in range(current.shape[1]):
            now, then = float(current[row, head]), float(later[row, head])
            if math.isnan(now) or math.isnan(then) or now >= from_score:
                continue
            values.append(float(predicted[row, head]))
            truth.append(then >= from_score)
    return values, truth


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=50)
def test_metrics_equal_loops_over_steps_and_heads(seed: int, missing: bool) -> None:
    current, later, predicted, sample = rows(seed, missing)
    pairs = wake_up_pairs(current, later, "reasoning", 0.6)
    values, truth = slow_decisions(current, later, predicted, 0.6)
    assert (int(pairs[0].sum()), int(pairs[1].sum())) == (len(values), sum(truth))
    if not any(truth):
        return
    threshold = wake_up_threshold(predicted, pairs)
    found = wake_up_decisions(predicted, pairs, sample).metrics(threshold)
    chosen = np.array(values, dtype=np.float32) >= np.float32(threshold)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, chosen, average="binary", zero_division=0)
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1))
    assert found.auprc == pytest.approx(average_precision_score(truth, values))
    every = [
        precision_recall_fscore_support(truth, np.array(values) >= cut, average="binary", zero_division=0)[2]
        for cut in values
    ]
    assert found.f1 == pytest.approx(max(every))


@given(st.integers(0, 10_000))
def test_heads_that_are_dynamic_already_may_be_predicted_at_will(seed: int) -> None:
    """Ranked last they count as decisions that are all right: leaving them out gives the same metrics."""
    current, later, predicted, sample = rows(seed, missing=False)
    pairs = wake_up_pairs(current, later, "reasoning", 0.6)
    changed = torch.where(pairs[0], predicted, torch.rand(predicted.shape))
    one, other = (wake_up_decisions(values, pairs, sample).metrics(0.5) for values in (predicted, changed))
    assert one.as_dict() == pytest.approx(other.as_dict(), nan_ok=True)


def test_copy_paste_scores_need_no_threshold() -> None:
    current, later = torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    asleep, wakes = wake_up_pairs(current, later, "copy_paste", threshold=2.0)
    assert asleep.tolist() == [[True, False, True, False]]
    assert wakes.tolist() == [[True, False, False, False]]


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_paired_differences_are_those_of_each_resample(seed: int) -> None:
    """Against samples that are copied: the same draws for both predictors."""
    rng = np.random.default_rng(seed)
    first, second = rng.random(6), rng.random(6)

    def mean_of(values: np.ndarray) -> Evaluated:
        return Evaluated.of(lambda w: {"mean": float(w @ values / w.sum())}, 6, 50, seed)

    gap = differences({"probe": mean_of(first), "other": mean_of(second)})["other"]["mean"]
    counts = np.random.default_rng(seed).multinomial(6, np.full(6, 1 / 6), size=50)
    copies = [[n for n, count in enumerate(row) for _ in range(count)] for row in counts]
    slow = [float(np.mean([first[n] - second[n] for n in copy])) for copy in copies]
    assert gap["value"] == pytest.approx(first.mean() - second.mean())
    assert (gap["low"], gap["high"]) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])))
