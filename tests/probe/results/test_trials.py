"""Trials on disk, cells of the heatmaps, and outcomes from trials."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.errors import UserError
from extract.generation import AblatedGeneration
from probe.experiments.ablation.heatmap_grid import Cells
from probe.experiments.ablation.outcomes import Outcomes, heads_of
from probe.experiments.ablation.plots import cell_means
from probe.results import Trials

CONFIG = {"llm": {"name": "x"}, "task": {"seed": 1, "lengths": {"low": 5, "high": 9}}}


def trial(sample: int, condition: str, accuracy: float, **fields: Any) -> dict[str, Any]:
    extra = {"ablated": 2.0, "dynamic": 3.0, "compensated": 1, "compensated_static": 1, "steps": 4}
    place = {"length": 100.0 + sample, "depth": 10.0 * sample}
    metrics = {"accuracy": accuracy, "rouge_l": accuracy / 2}
    return {"sample": sample, "condition": condition, "metrics": metrics, **place, **extra, **fields}


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials")
    assert trials.open(CONFIG) == []
    trials.write(3, [trial(1, "none", 1.0)])
    trials.write(0, [trial(0, "none", 0.0)])
    (tmp_path / "trials" / "000009.json.tmp").write_text("half")
    assert Trials(tmp_path / "trials").open(CONFIG) == [0, 3]
    assert [one["sample"] for one in trials.read()] == [0, 1]
    assert not list((tmp_path / "trials").glob("*.tmp"))
    with pytest.raises(UserError, match=r"task\.lengths\.high: 9 there, 8 here"):
        trials.open({**CONFIG, "task": {"seed": 1, "lengths": {"low": 5, "high": 8}}})
    (tmp_path / "trials" / "000003.json").write_text("[{")
    with pytest.raises(UserError, match="damaged"):
        trials.read()


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match="something else"):
        Trials(tmp_path).open(CONFIG)
    with pytest.raises(UserError, match="cannot write"):
        Trials(tmp_path / "mine.json" / "below").open(CONFIG)


def test_heads_of_a_generation_are_counted() -> None:
    """Three heads, two steps: head 2 takes over at the second, head 1 at the first."""
    before, after = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool(), torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    ablated, static = before & torch.tensor([True, False, True]), torch.tensor([True, True, False])
    assert heads_of(AblatedGeneration(torch.tensor([5, 6]), before, ablated, after), static) == {
        **{"steps": 2, "dynamic": 1.5, "ablated": 1.0},
        **{"compensated": 1, "compensated_static": 1},
    }
    assert (
        heads_of(AblatedGeneration(torch.tensor([5]), before[1:], ablated[1:], after[1:]), static)["compensated_static"]
        == 0
    )


def test_cells_hold_what_lies_in_them() -> None:
    cells = Cells({"start": 250.0, "stop": 750.0, "step": 500.0}, [5.0, 15.0, 25.0])
    assert cells.place("lengths", np.array([-1.0, 0, 499, 500, 999, 1000, 1001])).tolist() == [-1, 0, 0, 1, 1, 1, -1]
    assert cells.place("depths", np.array([0, 9.9, 10, 30, 31])).tolist() == [0, 0, 1, 2, -1]
    assert Cells([7.0], [1.0]).place("lengths", np.array([-5.0, 900])).tolist() == [0, 0]
    grid = Cells({"start": 5e3, "stop": 5e4, "step": 5e3}, {"start": 0.0, "stop": 100.0, "step": 10.0})
    assert (len(grid.axis("lengths")), len(grid.axis("depths"))) == (10, 11)
    assert grid.place("depths", np.arange(0.0, 101, 10)).tolist() == list(range(11))


@pytest.mark.parametrize(
    "lengths", [[], [1.0, 2.0, 4.0], {"start": 1.0, "stop": 2.0}, {"start": 1.0, "stop": 2.0, "step": 0.0}]
)
def test_bad_cells_are_refused(lengths: Any) -> None:
    with pytest.raises(UserError, match=r"model\.cells\.lengths"):
        Cells(lengths, [1.0]).check()


def test_outcomes_are_plain_means_over_all_and_over_solved_prompts() -> None:
    rows = [(0, 1.0, 0.0), (1, 0.0, 0.0), (2, 1.0, 1.0), (3, 1.0, 0.0)]
    trials = [trial(s, name, value) for s, *both in rows[::-1] for name, value in zip("ab", both, strict=True)]
    trials = [{**one, "condition": {"a": "none", "b": "dynamic"}[one["condition"]]} for one in trials]
    found = Outcomes.of(trials, ["none", "dynamic"])
    assert found.solved().tolist() == [True, False, True, True]
    figures = {name: found.figures(rows, 50, 0) for name, rows in found.groups().items()}
    assert figures["all"]["none"]["accuracy"]["value"] == 0.75
    assert figures["solved"]["none"]["accuracy"]["value"] == 1
    assert figures["solved"]["dynamic"]["accuracy"] | {"low": 0, "high": 0} == {
        **{"value": pytest.approx(1 / 3), "n": 3},
        **{"low": 0, "high": 0},
    }
    (pair, _) = found.pairs(found.groups()["all"], 50, 0)
    assert (pair["more"], pair["less"], pair["n"], pair["p"]) == (2, 0, 4, 0.5)
    means, count = cell_means(found, Cells([100.5, 102.5], [0.0, 20.0]), found.values["accuracy"][0])
    assert count.tolist() == [[1, 0], [1, 2]]  # sample 1, 10 % deep, lies at the second cell's lower edge
    np.testing.assert_equal(means, [[1, np.nan], [0, 1]])
