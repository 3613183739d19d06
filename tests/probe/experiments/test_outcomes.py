"""Outcomes of an ablation run from its trials, and the heads of a generation in numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from extract.generation import AblatedGeneration
from probe.experiments.ablation import HeatmapGrid, Outcomes, head_counts
from probe.metrics import Bootstrap

FEW = Bootstrap(resamples=50)


def trial(sample: int, condition: str, accuracy: float) -> dict[str, Any]:
    heads = {"ablated": 2.0, "dynamic": 3.0, "compensated": 1, "compensated_static": 1, "steps": 4}
    place = {"length": 100.0 + sample, "depth": 10.0 * sample}
    metrics = {"accuracy": accuracy, "rouge_l": accuracy / 2}
    return {"sample": sample, "condition": condition, "metrics": metrics, **place, **heads}


@pytest.fixture
def found() -> Outcomes:
    """Four prompts under two conditions, in any order."""
    rows = [(0, 1.0, 0.0), (1, 0.0, 0.0), (2, 1.0, 1.0), (3, 1.0, 0.0)]
    names = ["none", "dynamic"]
    trials = [trial(s, name, value) for s, *both in rows[::-1] for name, value in zip(names, both, strict=True)]
    return Outcomes.of(trials, {name: [name] for name in names})


def test_heads_of_a_generation_are_counted() -> None:
    """Three heads, two steps: head 2 compensates at the second, head 1 at the first."""
    before, after = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool(), torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    ablated, static = before & torch.tensor([True, False, True]), torch.tensor([True, True, False])
    assert head_counts(AblatedGeneration(torch.tensor([5, 6]), before, ablated, after), static) == {
        **{"steps": 2, "dynamic": 1.5, "ablated": 1.0, "ablated_by_step": [1, 1]},
        **{"compensated": 1, "compensated_static": 1},
    }
    second = AblatedGeneration(torch.tensor([5]), before[1:], ablated[1:], after[1:])
    assert head_counts(second, static)["compensated_static"] == 0


def test_estimates_are_plain_means_over_all_and_over_baseline_correct_prompts(found: Outcomes) -> None:
    assert found.baseline_correct().tolist() == [True, False, True, True]
    estimates = {name: found.estimates(chosen, FEW) for name, chosen in found.groups().items()}
    assert estimates["all"]["none"]["accuracy"]["value"] == 0.75
    assert estimates["baseline_correct"]["none"]["accuracy"]["value"] == 1
    cell = estimates["baseline_correct"]["dynamic"]["accuracy"]
    assert (cell["value"], cell["n"]) == (pytest.approx(1 / 3), 3)


def test_pairs_count_discordant_prompts(found: Outcomes) -> None:
    (pair, _) = found.pairs(found.groups()["all"], FEW)
    assert (pair["more"], pair["less"], pair["n"], pair["p"]) == (2, 0, 4, 0.5)


def test_heatmaps_hold_the_cells_means(found: Outcomes) -> None:
    grid = HeatmapGrid([100.5, 102.5], [0.0, 20.0])
    means, count = grid.means(found.length, found.depth, found.values["accuracy"]["none"])
    assert count.tolist() == [[1, 0], [1, 2]]  # sample 1, 10 % deep, is at the second cell's lower edge
    np.testing.assert_equal(means, [[1, np.nan], [0, 1]])
    cells = found.heatmaps(grid, FEW)["metrics"]["accuracy"]["none"]
    assert [(cell["depth"], cell["length"], cell["n"]) for cell in cells] == [(0, 0, 1), (1, 0, 1), (1, 1, 2)]
    assert [cell["value"] for cell in cells] == [1, 0, 1]


def test_random_sets_are_averaged_and_their_variance_is_in_the_interval() -> None:
    """Two sets of heads that differ on all prompts: resampling prompts alone would see no spread."""
    trials = [trial(s, name, value) for s in range(30) for name, value in (("none", 1.0), ("r 0", 1.0), ("r 1", 0.0))]
    found = Outcomes.of(trials, {"none": ["none"], "r": ["r 0", "r 1"]})
    cell = found.estimates(found.groups()["all"], Bootstrap(400))["r"]["accuracy"]
    assert (cell["value"], cell["low"], cell["high"], cell["n"]) == pytest.approx((0.5, 0, 1, 30))
    (pair, _) = found.pairs(found.groups()["all"], Bootstrap(400))
    assert (pair["difference"], pair["low"], pair["high"]) == pytest.approx((0.5, 0, 1))


def test_cells_of_one_or_two_prompts_have_no_bootstrap_interval(found: Outcomes) -> None:
    cells = found.heatmaps(HeatmapGrid([100.5, 102.5], [0.0, 20.0]), FEW)["metrics"]
    assert all(math.isnan(cell["low"]) and math.isnan(cell["high"]) for cell in cells["rouge_l"]["none"])
    assert all(0 <= cell["low"] < cell["high"] <= 1 for cell in cells["accuracy"]["none"])  # Wilson's


def test_pairs_with_the_reference_are_one_family_for_each_metric() -> None:
    names = ["none", "dynamic", "static 2", "random 2 seed 0"]
    rng = np.random.default_rng(0)
    trials = [trial(s, name, float(rng.random() < 0.3 + 0.2 * names.index(name))) for s in range(40) for name in names]
    found = Outcomes.of(trials, {name: [name] for name in names})
    pairs = found.pairs(found.groups()["all"], FEW)
    for metric in ("accuracy", "rouge_l"):
        mine = [pair for pair in pairs if pair["metric"] == metric]
        family = sorted(
            (pair for pair in mine if "dynamic" in (pair["first"], pair["second"])), key=lambda one: one["p"]
        )
        assert len(mine) == 6 and len(family) == 3
        assert all(pair["p_holm"] is None for pair in mine if pair not in family)
        assert [pair["p_holm"] for pair in family] == pytest.approx(
            [min(1, max((3 - j) * family[j]["p"] for j in range(i + 1))) for i in range(3)]
        )


def test_metrics_that_trials_of_an_earlier_version_lack_are_left_out() -> None:
    """A run that was begun before and goes on now; every metric that is left is compared."""
    former, now = trial(0, "none", 1.0), trial(1, "none", 1.0)
    now["metrics"] = {**now["metrics"], "contains": 1.0}
    mixed = Outcomes.of([former, now], {"none": ["none"]})
    assert mixed.metrics == ["accuracy", "rouge_l"]
    later = [{**trial(s, name, 1.0), "metrics": now["metrics"]} for s in (0, 1) for name in ("none", "dynamic")]
    whole = Outcomes.of(later, {name: [name] for name in ("none", "dynamic")})
    assert [pair["metric"] for pair in whole.pairs(whole.groups()["all"], FEW)] == ["accuracy", "rouge_l", "contains"]
