"""The cells of a heatmap as numbers: means with their n and intervals, for the record of a run."""

from typing import Any

import numpy as np

from probe.cells import Cells
from probe.intervals import mean_interval
from probe.outcomes import Outcomes


def cell_figures(outcomes: Outcomes, cells: Cells, resamples: int, seed: int) -> dict[str, Any]:
    """Centres of both axes, and for each metric and condition the cells that hold a prompt.

    A cell: its place (`depth`, `length`, counted along the axes), `n`, `value`, and the bounds of the 95 % interval.
    """
    rows, columns = cells.place("depths", outcomes.depth), cells.place("lengths", outcomes.length)
    held = sorted({(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if r >= 0 and c >= 0})
    found: dict[str, Any] = {"lengths": cells.axis("lengths").tolist(), "depths": cells.axis("depths").tolist()}
    found["metrics"] = {}
    for metric in outcomes.metrics[:2]:
        share = bool(np.isin(outcomes.values[metric], (0, 1)).all())
        grids: dict[str, list[dict[str, float]]] = {}
        for condition, values in zip(outcomes.conditions, outcomes.values[metric], strict=True):
            grids[condition] = []
            for row, column in held:
                inside = values[(rows == row) & (columns == column)]
                low, high = mean_interval(inside, share, resamples, seed)
                cell = {"depth": row, "length": column, "n": len(inside), "value": float(inside.mean())}
                grids[condition].append({**cell, "low": low, "high": high})
        found["metrics"][metric] = grids
    return found
