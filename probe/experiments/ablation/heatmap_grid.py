"""Context length × depth grid of the heatmaps (Figs. 2 and 6)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import stats

from extract.errors import UserError
from extract.utils import FiniteFloat

Centres = list[FiniteFloat] | dict[str, FiniteFloat]
Values = Float[np.ndarray, "prompt"]
MOST_CENTRES = 10_000
"""Most cells along an axis."""
UNBOUNDED = 1e12
"""Half the width of the only cell of an axis, in tokens or percent: it holds every prompt."""


@dataclass(frozen=True)
class HeatmapGrid:
    """Cells of a heatmap by their centres; a cell has its lower edges, the last of an axis both.

    Attributes:
        lengths: Centres in tokens: an evenly spaced list, or `{start, stop, step}` with both ends.
        depths: Centres in percent of the context, likewise.
        fade: Whether cells with fewer prompts are fainter (Fig. 6).

    >>> grid = HeatmapGrid(lengths=[100.0, 200.0], depths={"start": 0.0, "stop": 100.0, "step": 50.0})
    >>> grid.edges("lengths"), grid.edges("depths")
    (array([ 50., 150., 250.]), array([-25.,  25.,  75., 125.]))
    >>> means, count = grid.means(np.array([90.0, 110, 210]), np.array([0.0, 10, 60]), np.array([1.0, 0, 1]))
    >>> means
    array([[0.5, nan],
           [nan, 1. ],
           [nan, nan]])

    """

    lengths: Centres
    depths: Centres
    fade: bool = False

    def check(self, fields: Collection[str]) -> None:
        """Refuse bad settings, and a task whose samples have no place in the grid.

        Args:
            fields: Names of the samples' fields (`extract.Sample.fields`).

        Raises:
            UserError: naming the key.

        """
        if missing := [name for name in ("length", "depth") if name not in fields]:
            raise UserError(
                f"model.heatmap: the task's samples have no {' and no '.join(missing)} in Sample.fields (tokens of the "
                "context, depth of the evidence in percent); set model.init_args.heatmap to null"
            )
        for name in ("lengths", "depths"):
            axis = self.axis(name)
            if not len(axis) or (len(axis) > 1 and not np.allclose(np.diff(axis), axis[1] - axis[0])):
                raise UserError(f"model.heatmap.{name}: evenly spaced centres, one at least, not {axis.tolist()}")

    def axis(self, name: str) -> NDArray[np.float64]:
        """Centres of an axis, `lengths` or `depths`."""
        values: Centres = getattr(self, name)
        if isinstance(values, list):
            return np.asarray(values, dtype=np.float64)
        if set(values) != {"start", "stop", "step"} or values["step"] <= 0:
            raise UserError(f"model.heatmap.{name}: a list, or {{start, stop, step}} with a step above 0, not {values}")
        if (values["stop"] - values["start"]) / values["step"] > MOST_CENTRES:
            raise UserError(f"model.heatmap.{name}: more than {MOST_CENTRES:,} centres: {values}")
        return np.arange(values["start"], values["stop"] + values["step"] / 2, values["step"])

    def edges(self, name: str) -> NDArray[np.float64]:
        """Edges of the cells along an axis, one more than centres."""
        centres = self.axis(name)
        half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else UNBOUNDED
        return np.append(centres - half, centres[-1] + half)

    def means(self, length: Values, depth: Values, values: Values) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Mean of a metric in each cell, NaN without a prompt, and the number of prompts, both [depth, length].

        Args:
            length: Context length of each prompt, tokens.
            depth: Depth of the evidence in it, percent.
            values: The metric of each prompt.

        """
        means = self._binned(length, depth, values, "mean").statistic
        return means, self._binned(length, depth, values, "count").statistic.astype(np.int64)

    def locate(self, length: Values, depth: Values) -> Int[np.ndarray, "2 prompt"]:
        """Depth index and length index of each prompt's cell; both are -1 for a prompt outside of the grid."""
        found = self._binned(length, depth, np.zeros_like(length), "count").binnumber - 1
        sizes = np.array([[len(self.axis("depths"))], [len(self.axis("lengths"))]])
        outside = ((found < 0) | (found >= sizes)).any(axis=0)
        return np.where(outside, -1, found).astype(np.int64)

    def _binned(self, length: Values, depth: Values, values: Values, statistic: str) -> Any:
        edges = [self.edges("depths"), self.edges("lengths")]
        return stats.binned_statistic_2d(depth, length, values, statistic, edges, expand_binnumbers=True)
