"""Laws of the conditions as sets of heads, on any scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extract.errors import UserError
from probe.experiments.ablation import (
    AblateDynamic,
    AblateDynamicMinusStatic,
    AblateRandom,
    AblateStatic,
    AblateStaticMinusDynamic,
    Condition,
    NoAblation,
    TrainingHeads,
)
from probe.heads import Ranking

HEADS = 12


def training(average: int = 3) -> TrainingHeads:
    return TrainingHeads(Ranking(np.arange(HEADS, 0, -1, dtype=float).reshape(3, 4), True, "test"), average)


def ablated(condition: Condition, dynamic: Tensor, order: Tensor) -> Tensor:
    condition.prepare(training())
    return condition.ablated(dynamic, order)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Dynamic heads of a few rows and their order, with ties."""
    rows = draw(st.integers(1, 4))
    dynamic = draw(st.lists(st.booleans(), min_size=rows * HEADS, max_size=rows * HEADS))
    order = draw(st.lists(st.integers(0, 5), min_size=rows * HEADS, max_size=rows * HEADS))
    return torch.tensor(dynamic).view(rows, HEADS), torch.tensor(order, dtype=torch.float32).view(rows, HEADS)


@settings(deadline=None)
@given(steps(), st.integers(0, HEADS + 3))
def test_the_first_k_heads_are_the_best_ones(step: tuple[Tensor, Tensor], k: int) -> None:
    dynamic, order = step
    chosen = ablated(AblateDynamic(top=k), dynamic, order)
    for row in range(len(dynamic)):
        ranked = sorted(dynamic[row].nonzero().flatten().tolist(), key=lambda head: (-float(order[row, head]), head))
        assert chosen[row].nonzero().flatten().tolist() == sorted(ranked[:k])


@settings(deadline=None)
@given(steps())
def test_set_algebra(step: tuple[Tensor, Tensor]) -> None:
    dynamic, _ = step
    none, every = ablated(NoAblation(), *step), ablated(AblateDynamic(), *step)
    static = ablated(AblateStatic(), *step)
    static_only, dynamic_only = ablated(AblateStaticMinusDynamic(), *step), ablated(AblateDynamicMinusStatic(), *step)
    assert not none.any()
    assert torch.equal(every, dynamic)
    assert torch.equal(ablated(AblateDynamic(top=0), *step), none)
    assert torch.equal(ablated(AblateDynamic(top=HEADS), *step), dynamic)
    assert static.sum(dim=1).eq(3).all() and static[:, :3].all()
    assert not (static_only & dynamic_only).any()
    assert torch.equal(static_only | dynamic_only | (static & dynamic), static | dynamic)
    smaller, larger = ablated(AblateDynamic(top=2), *step), ablated(AblateDynamic(top=5), *step)
    assert not (smaller & ~larger).any()
    sampled, other = ablated(AblateRandom(), *step), ablated(AblateRandom(exclude_dynamic=True), *step)
    assert sampled.sum(dim=1).eq(3).all() and torch.equal(sampled, sampled[:1].expand_as(sampled))
    assert not (other & dynamic).any()
    assert torch.equal(other.sum(dim=1), (~dynamic).sum(dim=1).clamp(max=3))
    assert not (sampled & ~dynamic & ~other).any()  # a sampled head is ablated unless it is dynamic


def test_random_heads_are_fixed_by_their_seed() -> None:
    row = torch.zeros(1, HEADS, dtype=torch.bool), torch.zeros(1, HEADS)
    samples = [ablated(AblateRandom(seed=seed), *row).nonzero()[:, 1].tolist() for seed in (0, 0, 1, 2, 3)]
    assert samples[0] == samples[1]
    assert len({tuple(heads) for heads in samples}) > 2


@pytest.mark.parametrize(
    "condition", [AblateStatic(n=0), AblateRandom(n=HEADS + 1), AblateDynamic(top=-1), AblateStatic(ranking="no.json")]
)
def test_bad_settings_are_refused_before_the_run(condition: Condition) -> None:
    with pytest.raises(UserError, match=r"conditions|ranking file"):
        condition.prepare(training())


def test_names_tell_conditions_apart() -> None:
    conditions = [
        NoAblation(),
        AblateDynamic(),
        AblateDynamic(5),
        AblateStatic(),
        AblateStaticMinusDynamic(2),
        AblateDynamicMinusStatic(),
        AblateRandom(),
    ]
    for condition in conditions:
        condition.prepare(training())
    assert [condition.name for condition in conditions] == [
        *("none", "dynamic", "dynamic top 5", "static 3", "static 2 minus dynamic", "dynamic minus static 3"),
        "random 3 seed 0",
    ]
