"""The grid of context length × depth that heatmaps are drawn on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from extract.errors import UserError
from probe.experiments.ablation.outcomes import Outcomes
from probe.metrics import mean_interval

Centres = list[float] | dict[str, float]


@dataclass(frozen=True)
class Cells:
    """A heatmap's cells by their centres; a prompt belongs to the cell that it lies in.

    Attributes:
        lengths: Centres in tokens: an evenly spaced list, or `{start, stop, step}` with both ends.
        depths: Centres in percent of the context, likewise.
        fade: Draw a cell the fainter the fewer prompts it has (Figs. 6 and 7).

    """

    lengths: Centres
    depths: Centres
    fade: bool = False

    def check(self) -> None:
        """Bad settings raise a UserError."""
        for name in ("lengths", "depths"):
            axis = self.axis(name)
            if not len(axis) or (len(axis) > 1 and not np.allclose(np.diff(axis), axis[1] - axis[0])):
                raise UserError(f"model.cells.{name}: evenly spaced centres, one at least, not {axis.tolist()}")

    def axis(self, name: str) -> NDArray[np.float64]:
        """Centres of an axis, `lengths` or `depths`."""
        values: Centres = getattr(self, name)
        if isinstance(values, list):
            return np.asarray(values, dtype=np.float64)
        if set(values) != {"start", "stop", "step"} or values["step"] <= 0:
            raise UserError(f"model.cells.{name}: a list, or {{start, stop, step}} with a step above 0, not {values}")
        return np.arange(values["start"], values["stop"] + values["step"] / 2, values["step"])

    def place(self, name: str, values: NDArray[np.float64]) -> Int[NDArray[np.int64], "prompt"]:
        """Cell of each value along an axis, -1 for one beyond it. The last cell takes its upper edge too."""
        centres = self.axis(name)
        half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else np.inf
        edges = np.append(centres - half, centres[-1] + half)
        found = np.searchsorted(edges, values, side="right") - 1
        found[values == edges[-1]] = len(centres) - 1
        return np.where((found >= 0) & (found < len(centres)), found, -1)


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
