"""Step tables against lists of scores; batches in any order."""

import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.heads import StepSums

score = st.one_of(st.floats(0, 1, width=32), st.just(math.nan))
rows = st.lists(st.tuples(st.integers(0, 6), st.lists(score, min_size=2, max_size=2)), min_size=1, max_size=30)


def slow_means(rows: list[tuple[int, list[float]]], head: int, step: int) -> float:
    """The head's scores at the step and, once, its mean over all steps."""
    every, at_step = [], defaultdict(list)
    for number, scores in rows:
        if not math.isnan(scores[head]):
            every.append(scores[head])
            at_step[number].append(scores[head])
    mean = sum(every) / len(every) if every else 0.0
    return (sum(at_step[step]) + mean) / (len(at_step[step]) + 1)


@given(rows, st.integers(1, 7))
@settings(max_examples=80)
def test_a_table_equals_lists_of_scores(rows: list[tuple[int, list[float]]], size: int) -> None:
    sums = StepSums()
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        sums.update(torch.tensor([scores for _, scores in batch]), torch.tensor([step for step, _ in batch]))
    sums.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    steps = torch.arange(12)  # beyond the last, too
    predicted = sums.table().predict(steps)
    for step in steps.tolist():
        for head in range(2):
            assert predicted[step, head].item() == pytest.approx(slow_means(rows, head, step), abs=1e-6)


def test_a_rhythm_is_learnt_exactly() -> None:
    """A thousand samples whose heads depend on the step number alone."""
    pattern = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    sums = StepSums()
    sums.update(pattern.repeat(1000, 1), torch.arange(3).repeat(1000))
    torch.testing.assert_close(sums.table().predict(torch.arange(3)), pattern, atol=1e-3, rtol=0)
