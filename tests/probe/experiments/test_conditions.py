"""Laws of the conditions as sets of heads, on any scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extract.errors import UserError
from extract.generation import StepHeads
from probe.experiments.ablation import (
    AblateDynamic,
    AblateDynamicMinusStatic,
    AblateRandom,
    AblateStatic,
    AblateStaticMinusDynamic,
    Condition,
    NoAblation,
    Preparation,
)
from probe.heads import HeadCounts, Ranking

HEADS = 12


def preparation(average: float = 3.0) -> Preparation:
    ranking = Ranking(np.arange(HEADS, 0, -1, dtype=float).reshape(3, 4), True, "test")
    return Preparation(ranking, HeadCounts((1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)), average)


def ablated(condition: Condition, dynamic: Tensor, order: Tensor, step: int = 0) -> Tensor:
    condition.prepare(preparation())
    return condition.ablated(StepHeads(dynamic, order, torch.arange(len(dynamic)), torch.full((len(dynamic),), step)))


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
        condition.prepare(preparation())


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
        condition.prepare(preparation())
    assert [condition.name for condition in conditions] == [
        *("none", "dynamic", "dynamic top 5", "static 3", "static 2 minus dynamic", "dynamic minus static 3"),
        "random 3 seed 0",
    ]


NUMBERED = [AblateStatic(per_step=True), AblateRandom(per_step=True), AblateRandom(seed=1, per_step=True)]


def test_numbers_per_step_have_the_distribution_and_agree_between_conditions() -> None:
    """Half of the steps have no head and half have six: their average is 3, as n would be."""
    rows = 40
    nothing = torch.zeros(rows, HEADS, dtype=torch.bool), torch.zeros(rows, HEADS)
    found = torch.stack(
        [torch.stack([ablated(one, *nothing, step).sum(dim=1) for step in range(60)]) for one in NUMBERED]
    )
    assert found.unique().tolist() == [0, 6]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    # 2,400 fair coins: five standard errors of their mean.
    assert float(found[0].double().mean()) == pytest.approx(3, abs=5 * 3 / 2400**0.5)
    assert found[0].float().std(dim=0).min() > 0 and found[0].float().std(dim=1).min() > 0


def test_numbers_per_step_do_not_depend_on_the_batch() -> None:
    condition = AblateStatic(per_step=True)
    nothing = torch.zeros(5, HEADS, dtype=torch.bool), torch.zeros(5, HEADS)
    whole = ablated(condition, *nothing, step=7)
    for sample in range(5):
        alone = condition.ablated(StepHeads(nothing[0][:1], nothing[1][:1], torch.tensor([sample]), torch.tensor([7])))
        assert torch.equal(alone[0], whole[sample])


def test_several_random_sets_are_the_single_ones() -> None:
    several = AblateRandom(n=4, seed=2, sets=3, exclude_dynamic=True)
    several.prepare(preparation())
    assert several.name == "random 4, 3 sets from seed 2, not dynamic"
    step = torch.rand(2, HEADS) > 0.5, torch.zeros(2, HEADS)
    for seed, member in zip((2, 3, 4), several.members(), strict=True):
        single = AblateRandom(n=4, seed=seed, exclude_dynamic=True)
        assert torch.equal(ablated(member, *step), ablated(single, *step))
        assert member.name == single.name == f"random 4 seed {seed}, not dynamic"


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=6))
def test_counts_average_prompts_and_steps_as_written_out(prompts: list[list[int]]) -> None:
    counts = HeadCounts.of_steps(prompts)
    assert counts.average() == pytest.approx(sum(sum(steps) / len(steps) for steps in prompts) / len(prompts))
    assert counts.most == max(1, *(count for steps in prompts for count in steps))
    spaced = counts.quantile((torch.arange(4000) + 0.5) / 4000)
    assert float(spaced.double().mean()) == pytest.approx(counts.average(), abs=0.01)
