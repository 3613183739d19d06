"""Metrics of attribution against scipy and plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from probe.attribution.masks import sample_masks
from probe.attribution.metrics import (
    largest_drop_share,
    linear_datamodeling_score,
    mean_rank,
    precision_recall,
    without_top,
)

SCORES = st.lists(st.integers(-3, 3), min_size=2, max_size=7)


@given(SCORES, st.integers(0, 5))
def test_lds_is_the_rank_correlation_of_sums(scores: list[int], seed: int) -> None:
    masks = sample_masks(12, len(scores), seed)
    truth = torch.rand(len(masks), generator=torch.Generator().manual_seed(seed))
    predicted = [math.fsum(s for s, kept in zip(scores, mask, strict=True) if kept) for mask in masks.tolist()]
    found = linear_datamodeling_score(torch.tensor(scores).float(), masks, truth)
    if len(masks) < 3:
        assert math.isnan(found)
    elif len(set(predicted)) == 1:
        assert found == 0
    else:
        assert found == pytest.approx(stats.spearmanr(predicted, truth.numpy()).statistic)


def test_lds_ignores_rounding_and_scale() -> None:
    """Sums of the same scores in another order are ties; a positive factor changes nothing."""
    masks = torch.tensor([[True, True, False], [True, False, True], [False, True, True], [False, False, True]])
    scores, truth = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = linear_datamodeling_score(scores, masks, truth)
    assert found == pytest.approx(linear_datamodeling_score(scores * 1e6, masks, truth))
    tied = linear_datamodeling_score(torch.tensor([0.1, 0.2, 0.3]), masks[[0, 3, 1, 2]], truth)  # .1 + .2 is .3
    assert tied == pytest.approx(stats.spearmanr([3, 3, 4, 5], truth.numpy()).statistic)
    assert math.isnan(linear_datamodeling_score(scores, masks, torch.ones(4)))


@given(SCORES, st.data())
def test_ranks_and_citations(scores: list[int], data: st.DataObject) -> None:
    values, k = torch.tensor(scores).float(), data.draw(st.integers(1, len(scores)))
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
    assert without_top(values, k).tolist() == [n not in order[:k] for n in range(len(scores))]
    facts = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    ranks = stats.rankdata(-np.array(scores))
    assert mean_rank(values, facts) == min(ranks[n] for n in facts)
    hits = sum(n in facts for n in order[:k])
    assert precision_recall(values, facts, k) == (hits / k, hits / len(facts))
    drops = data.draw(st.lists(st.integers(-3, 3), min_size=len(scores), max_size=len(scores)))
    assume(max(drops) > 0)
    assert largest_drop_share(values, torch.tensor(drops).float()) == pytest.approx(drops[order[0]] / max(drops))


def test_metrics_without_facts_or_drops_are_missing() -> None:
    scores = torch.tensor([1.0, 2.0])
    assert math.isnan(mean_rank(scores, []))
    assert all(map(math.isnan, precision_recall(scores, [], 1)))
    assert math.isnan(largest_drop_share(scores, torch.tensor([0.0, -1.0])))
    assert precision_recall(scores, [0, 1], k=5) == (1.0, 1.0)
