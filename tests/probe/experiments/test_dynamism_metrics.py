"""Dynamism of heads against sets in plain Python; laws; golden values."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from probe.experiments.dynamism import METRICS, DynamismMetric, DynamismSums, StaticSizes, jaccard, shuffle_steps

Sets = list[list[set[int]]]


def slow_metrics(samples: Sets, static: set[int]) -> dict[str, float]:
    """Table 1 from sets: one list of steps for each sample."""

    def j(a: set[int], b: set[int]) -> float:
        return len(a & b) / len(a | b)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    steps = [step for sample in samples for step in sample]
    pairs = [(a, b) for sample in samples for a, b in itertools.pairwise(sample)]
    count: dict[int, int] = {}
    for step in steps:
        for head in step:
            count[head] = count.get(head, 0) + 1
    total = sum(count.values())
    return {
        "jaccard_static": mean([j(step, static) for step in steps]),
        "jaccard_static_non_empty": mean([j(step, static) for step in steps if step]),
        "jaccard_adjacent": mean([j(a, b) for a, b in pairs if a or b]),
        "jaccard_adjacent_non_empty": mean([j(a, b) for a, b in pairs if a and b]),
        "jaccard_adjacent_empty_is_one": mean([j(a, b) if a or b else 1.0 for a, b in pairs]),
        "entropy": -sum(n / total * math.log(n / total) for n in count.values()) if total else math.nan,
        "heads_per_step": mean([len(step) for step in steps]),
        "heads_per_step_sd": statistics.pstdev([len(step) for step in steps]),
        "heads_ever": len(count),
        "steps_without": mean([float(not step) for step in steps]),
    }


def slow_sizes(samples: Sets, sets: dict[int, set[int]]) -> dict[str, float]:
    """The Jaccard index with each static set, and the share of dynamic heads in it, from sets."""
    found = {}
    for size, static in sets.items():
        one = slow_metrics(samples, static)
        heads = [head for sample in samples for step in sample for head in step]
        found[f"jaccard_static_top_{size}"] = one["jaccard_static"]
        found[f"jaccard_static_non_empty_top_{size}"] = one["jaccard_static_non_empty"]
        found[f"static_coverage_top_{size}"] = sum(head in static for head in heads) / len(heads) if heads else math.nan
    return found


HEADS = 6
step_sets = st.sets(st.integers(0, HEADS - 1), max_size=HEADS)
samples_of_steps = st.lists(st.lists(step_sets, min_size=1, max_size=6), min_size=1, max_size=6)


def tensors(samples: Sets, heads: int = HEADS) -> tuple[Tensor, Tensor]:
    active = torch.zeros(sum(map(len, samples)), heads, dtype=torch.bool)
    for row, step in enumerate(step for sample in samples for step in sample):
        active[row, list(step)] = True
    return active, torch.tensor([number for number, sample in enumerate(samples) for _ in sample])


def mask(heads: set[int]) -> Tensor:
    chosen = torch.zeros(HEADS, dtype=torch.bool)
    chosen[list(heads)] = True
    return chosen


def measured(samples: Sets, static: set[int]) -> DynamismSums:
    metric = DynamismMetric(HEADS)
    metric.update(*tensors(samples), mask(static))
    return metric.compute()


@given(samples_of_steps, st.sets(st.integers(0, HEADS - 1), min_size=1))
def test_metrics_equal_plain_sets(samples: Sets, static: set[int]) -> None:
    fast = measured(samples, static).metrics()
    slow = slow_metrics(samples, static)
    assert tuple(fast) == METRICS
    for name in METRICS:
        if name == "entropy" and math.isnan(slow[name]):
            continue
        assert fast[name] == pytest.approx(slow[name], abs=1e-9, nan_ok=True), name
    assert not fast["entropy"] > math.log(HEADS) + 1e-9


@given(samples_of_steps, st.integers(1, HEADS - 1), st.randoms())
def test_static_sets_of_several_sizes_equal_plain_sets(samples: Sets, size: int, chance: object) -> None:
    sets = {size: set(range(size)), HEADS: set(range(HEADS))}
    active, sample = tensors(samples)
    parts = [sample == number for number in range(len(samples))]
    chance.shuffle(parts)  # type: ignore[attr-defined]
    metric = StaticSizes(list(sets))
    for part in [*parts, sample < 0]:  # the last: a process without any batch
        metric.update(active[part], sample[part], torch.stack([mask(static) for static in sets.values()]))
    weights = np.arange(1.0, len(samples) + 1)
    repeated = [step for step, n in zip(samples, weights, strict=True) for _ in range(int(n))]
    for found, wanted in (
        (metric.compute().metrics(), slow_sizes(samples, sets)),
        (metric.compute().metrics(weights), slow_sizes(repeated, sets)),
    ):
        assert found == pytest.approx(wanted, nan_ok=True)


@given(samples_of_steps, st.sets(st.integers(0, HEADS - 1), min_size=1), st.randoms())
@settings(max_examples=50)
def test_batches_and_their_order_leave_no_trace(samples: Sets, static: set[int], chance: object) -> None:
    active, sample = tensors(samples)
    parts = [sample == number for number in range(len(samples))]
    chance.shuffle(parts)  # type: ignore[attr-defined]
    metric = DynamismMetric(HEADS)
    for part in parts:
        metric.update(active[part], sample[part], mask(static))
    metric.update(active[:0], sample[:0], mask(static))  # a process without any batch
    joined = metric.compute()
    np.testing.assert_array_equal(joined.sums, measured(samples, static).sums)
    np.testing.assert_array_equal(joined.counts, measured(samples, static).counts)


@given(samples_of_steps, st.permutations(range(HEADS)))
@settings(max_examples=50)
def test_names_of_heads_do_not_matter(samples: Sets, order: list[int]) -> None:
    renamed = [[{order[head] for head in step} for step in sample] for sample in samples]
    one, other = measured(samples, {0, 1}).metrics(), measured(renamed, {order[0], order[1]}).metrics()
    for name in METRICS:
        assert one[name] == pytest.approx(other[name], nan_ok=True)


@given(step_sets, step_sets)
def test_jaccard_is_symmetric_and_within_0_and_1(a: set[int], b: set[int]) -> None:
    there, back = jaccard(mask(a)[None], mask(b)[None]), jaccard(mask(b)[None], mask(a)[None])
    assert there == back
    assert 0 <= there <= 1
    assert (there == 1) == (a == b and bool(a))


def test_twenty_equal_heads_have_entropy_ln_20() -> None:
    metric = DynamismMetric(30)
    metric.update(*tensors([[{head} for head in range(20)]], 30), torch.ones(30, dtype=torch.bool))
    assert metric.compute().metrics()["entropy"] == pytest.approx(2.9957, abs=5e-5)


@given(samples_of_steps)
@settings(max_examples=50)
def test_weights_count_a_sample_as_often(samples: Sets) -> None:
    weights = np.arange(len(samples), dtype=float)
    weights[0] = 2
    repeated = [sample for sample, n in zip(samples, weights, strict=True) for _ in range(int(n))]
    weighed, plain = measured(samples, {0}).metrics(weights), slow_metrics(repeated, {0})
    for name in METRICS:
        if name != "entropy" or not math.isnan(plain[name]):
            assert weighed[name] == pytest.approx(plain[name], abs=1e-9, nan_ok=True), name


@given(samples_of_steps, st.integers(0, 100))
@settings(max_examples=50)
def test_shuffling_keeps_each_heads_count_in_each_sample(samples: Sets, seed: int) -> None:
    active, sample = tensors(samples)
    shuffled = shuffle_steps(active, sample, seed)
    for number in range(len(samples)):
        here = sample == number
        assert shuffled[here].sum(0).tolist() == active[here].sum(0).tolist()
        assert torch.equal(shuffle_steps(active[here], sample[here], seed), shuffled[here])  # whatever the batch


def test_shuffling_permutes_heads_apart_and_evenly() -> None:
    active = torch.zeros(3000, 2, dtype=torch.bool)
    sample = torch.arange(1000).repeat_interleave(3)
    active[::3] = True  # both heads at the first step of three
    shuffled = shuffle_steps(active, sample, 0).reshape(1000, 3, 2)
    places = shuffled.int().argmax(1)
    table = torch.bincount(places[:, 0] * 3 + places[:, 1], minlength=9)
    assert ((table - 1000 / 9).abs() < 45).all()  # independent: each of nine pairs equally often, within 4.5 sd


def test_intervals_hold_the_metric_they_belong_to() -> None:
    rng = np.random.default_rng(0)
    samples = [[set(np.flatnonzero(rng.random(HEADS) < 0.4).tolist()) for _ in range(8)] for _ in range(60)]
    sums = measured(samples, {0, 1})
    metrics, intervals = sums.metrics(), sums.intervals(300, 0)
    assert "heads_ever" not in intervals
    for name in ("jaccard_static", "jaccard_adjacent", "heads_per_step", "steps_without"):
        low, high = intervals[name]
        assert low < metrics[name] < high
