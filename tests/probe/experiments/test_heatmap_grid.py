"""Cells of the heatmaps, against a search through their edges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from probe.experiments.ablation import HeatmapGrid


def cell(centres: list[float], value: float) -> int:
    """Index of the cell of a value along one axis; -1 beyond it."""
    if len(centres) == 1:
        return 0
    half = (centres[1] - centres[0]) / 2
    if value == centres[-1] + half:
        return len(centres) - 1
    found = [n for n, centre in enumerate(centres) if centre - half <= value < centre + half]
    return found[0] if found else -1


axes = st.builds(
    lambda first, step, n: [first + step * i for i in range(n)], *[st.integers(1, 40)] * 2, st.integers(1, 5)
)
values = st.integers(-10, 260).map(lambda n: n / 2)


@given(axes, axes, st.lists(st.tuples(values, values, st.floats(0, 1)), min_size=1, max_size=30))
def test_prompts_are_in_the_cells_whose_edges_enclose_them(lengths: Any, depths: Any, prompts: Any) -> None:
    grid = HeatmapGrid(list(map(float, lengths)), list(map(float, depths)))
    length, depth, value = np.array(prompts, dtype=np.float64).T
    wanted = [(cell(depths, d), cell(lengths, t)) for t, d, _ in prompts]
    wanted = [pair if min(pair) >= 0 else (-1, -1) for pair in wanted]
    assert [tuple(pair) for pair in grid.locate(length, depth).T.tolist()] == wanted
    means, count = grid.means(length, depth, value)
    assert count.sum() == sum(pair[0] >= 0 for pair in wanted)
    for row, column in np.argwhere(count):
        inside = [value[n] for n, pair in enumerate(wanted) if pair == (row, column)]
        assert count[row, column] == len(inside)
        assert means[row, column] == pytest.approx(np.mean(inside))
    assert np.isnan(means[count == 0]).all()


def test_an_axis_of_start_stop_and_step_has_both_ends() -> None:
    grid = HeatmapGrid({"start": 5e3, "stop": 5e4, "step": 5e3}, {"start": 0.0, "stop": 100.0, "step": 10.0})
    assert (len(grid.axis("lengths")), len(grid.axis("depths"))) == (10, 11)
    depths = np.arange(0.0, 101, 10)
    assert grid.locate(np.full(11, 5e3), depths)[0].tolist() == list(range(11))


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [1.0, 2.0, 4.0],
        {"start": 1.0, "stop": 2.0},
        {"start": 1.0, "stop": 2.0, "step": 0.0},
        {"start": 0.0, "stop": 1e15, "step": 1e-3},
    ],
)
def test_bad_grids_are_refused(lengths: Any) -> None:
    with pytest.raises(UserError, match=r"model\.heatmap\.lengths"):
        HeatmapGrid(lengths, [1.0]).check(("length", "depth"))
