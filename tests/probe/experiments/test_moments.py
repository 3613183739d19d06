"""Streaming moments against pairs of rows put together one by one."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from probe.experiments.correlation.moments import PairedMoments, upper_gram

X, Y, K = 4, 3, 5


def rows(lengths: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    sample = torch.repeat_interleave(torch.arange(len(lengths)) * 3, torch.tensor(lengths))
    return torch.randn(n, X, generator=generator) + 5, torch.rand(n, Y, generator=generator), sample


def pairs(x: Tensor, y: Tensor, sample: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (x at n, y at n + k) of one sample with no unscored row from n to n + k."""
    kept = [n for n in range(len(x) - k) if sample[n] == sample[n + k] and bool(y[n : n + k + 1].isfinite().all())]
    return x[kept].double().numpy(), y[[n + k for n in kept]].double().numpy()


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.lists(st.integers(0, 40), max_size=4),
    st.booleans(),
)
@example([1, 1, 1, 1, 1, 5], 6, [], True)  # of ten rows one pair reaches the last offset
@settings(max_examples=80, deadline=None)
def test_moments_of_every_offset_equal_those_of_its_pairs(
    lengths: list[int], seed: int, gaps: list[int], whole: bool
) -> None:
    x, y, sample = rows(lengths, seed)
    for gap in gaps:
        y[gap % len(y), gap % Y] = torch.nan
    centre = x.mean(dim=0) + 0.1
    metric = PairedMoments(X, Y, K, centre, torch.full((Y,), 0.4))
    parts = (
        [torch.ones_like(sample, dtype=torch.bool)] if whole else [sample == unit for unit in sample.unique().flip(0)]
    )
    for part in parts:
        metric.update(x[part], y[part], sample[part])
    metric.update(x[:0], y[:0], sample[:0])
    for k, found in enumerate(metric.compute()):
        a, b = pairs(x, y, sample, k)
        if not len(a):
            assert found is None
            continue
        assert found is not None
        assert found.count == len(a)
        a0, b0 = a - a.mean(0), b - b.mean(0)
        for name, wanted in (("xx", a0.T @ a0), ("yy", b0.T @ b0), ("xy", a0.T @ b0)):
            np.testing.assert_allclose(getattr(found, name), wanted / len(a), atol=2e-6)
        np.testing.assert_allclose(found.x_range, np.ptp(a, axis=0), atol=2e-6)
        np.testing.assert_allclose(found.y_range, np.ptp(b, axis=0), atol=2e-6)


def test_state_does_not_grow_with_rows() -> None:
    metric = PairedMoments(X, Y, K)
    sizes = set()
    for seed in range(3):
        metric.update(*rows([5, 7], seed))
        sizes.add(sum(state.numel() for state in metric.metric_state.values()))
    assert len(sizes) == 1


def test_large_offsets_of_values_cost_no_precision() -> None:
    """Columns far from zero, of small variance: the centre is what keeps float32 products exact enough."""
    x, y, sample = rows([400], 0)
    far = PairedMoments(X, Y, 0, torch.full((X,), 1005.0))
    far.update(x + 1000, y, sample)
    near = PairedMoments(X, Y, 0, torch.full((X,), 5.0))
    near.update(x, y, sample)
    (a,), (b,) = far.compute(), near.compute()
    assert a is not None
    assert b is not None
    assert a.xx == pytest.approx(b.xx, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("columns", [1, 128, 130, 300])
def test_the_gram_matrix_is_whole_above_the_diagonal(columns: int) -> None:
    x = torch.randn(7, columns, dtype=torch.float64)
    assert torch.allclose(upper_gram(x).triu(), (x.T @ x).triu())
