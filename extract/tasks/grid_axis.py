"""Axes of a needle grid: lengths and depths, as grid values or as an interval of random values."""

from collections import Counter
from collections.abc import Sequence

from extract.errors import UserError
from extract.utils import FiniteFloat

Axis = list[FiniteFloat] | dict[str, FiniteFloat]
"""Values of a grid, `{start, stop, step}` of one, or `{low, high}` for a uniformly random value for each sample."""


MOST_VALUES = 10_000
"""Most values of a grid axis."""


def grid_values(axis: Axis, name: str) -> list[float | None]:
    """Grid values of an axis, both ends included; `[None]` for a random one, which has a single cell.

    Raises:
        UserError: other keys, a step that is not positive, or too many values; `name` names the axis.

    >>> grid_values({"start": 0, "stop": 100, "step": 50}, "depths"), grid_values({"low": 0, "high": 9}, "depths")
    ([0, 50, 100], [None])

    """
    if isinstance(axis, list):
        return list(axis)
    if set(axis) == {"low", "high"}:
        return [None]
    if set(axis) != {"start", "stop", "step"}:
        raise UserError(f"task {name}: a list, {{low, high}} or {{start, stop, step}}, not the keys {sorted(axis)}")
    if axis["step"] <= 0:
        raise UserError(f"task {name}: a grid's step must be positive, not {axis['step']}")
    steps = (axis["stop"] - axis["start"]) / axis["step"] + 1e-9
    if not steps < MOST_VALUES:  # it may be beyond the range of whole numbers
        raise UserError(f"task {name}: a grid of {steps + 1:,.0f} values; at most {MOST_VALUES:,}")
    count = int(steps) + 1
    return [axis["start"] + i * axis["step"] for i in range(count)]


def axis_value(axis: Axis, cell: float | None, share: float) -> float:
    """Value of a sample: its grid cell's, or that share of the way from `low` to `high` where there is no cell.

    >>> axis_value({"low": 500, "high": 5000}, None, share=0.5), axis_value([100, 200], 200, share=0.5)
    (2750.0, 200)

    """
    if cell is not None:
        return cell
    assert isinstance(axis, dict)
    return axis["low"] + share * (axis["high"] - axis["low"])


def axis_extent(axis: Axis, name: str) -> list[float]:
    """All grid values, or the two bounds of a random axis.

    Raises:
        UserError: the bounds are in the wrong order.

    >>> axis_extent({"low": 0, "high": 9}, "depths")
    [0, 9]

    """
    if isinstance(axis, dict) and "low" in axis:
        if axis["low"] > axis["high"]:
            raise UserError(f"task {name}: low {axis['low']} is above high {axis['high']}")
        return [axis["low"], axis["high"]]
    return [value for value in grid_values(axis, name) if value is not None]


def other_cells(grid: Sequence[float], pairs: Sequence[tuple[float, float]]) -> Counter[tuple[float, float]]:
    """Number of samples whose real value is nearer to another grid value, by the requested value and that one.

    Args:
        grid: Values of the grid.
        pairs: Requested value, one of the grid's, and real value of each sample.

    >>> other_cells([0, 50, 100], [(50, 26), (50, 24), (100, 70)])
    Counter({(50, 0): 1, (100, 50): 1})

    """
    found: Counter[tuple[float, float]] = Counter()
    for requested, real in pairs:
        reached = min(grid, key=lambda value: abs(value - real))
        if abs(reached - real) < abs(requested - real):
            found[requested, reached] += 1
    return found
