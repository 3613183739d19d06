"""Metrics of each condition on the same prompts: means with intervals, paired comparisons, heatmap cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from probe.experiments.ablation.comparison import reference_condition
from probe.experiments.ablation.conditions import NoAblation
from probe.experiments.ablation.heatmap_grid import HeatmapGrid
from probe.metrics import Bootstrap, Cells, Estimate, compare_conditions, mean_interval
from probe.results import Trial

HEAD_COUNTS = ("ablated", "dynamic", "compensated", "compensated_static", "steps")
GROUPS = ("all", "baseline_correct")
"""All prompts, and those that the model answers correctly without ablation: only on these can ablation do harm."""
Chosen = Bool[np.ndarray, "prompt"]


@dataclass(frozen=True)
class Outcomes:
    """Trials as arrays.

    Attributes:
        conditions: Names, in the order of the config.
        metrics: Names of the task's metrics; the first is 0 or 1, whether the answer is correct.
        values: Of each metric, and of each of `HEAD_COUNTS`, by condition, for each prompt; for each random set and
            prompt, where a condition has several sets.
        length, depth: Of each prompt's context and evidence: tokens, and percent; NaN where the task has no such field.

    """

    conditions: list[str]
    metrics: list[str]
    values: dict[str, dict[str, Cells]]
    length: Float[np.ndarray, "prompt"]
    depth: Float[np.ndarray, "prompt"]

    @classmethod
    def of(cls, trials: Sequence[Trial], members: Mapping[str, Sequence[str]]) -> "Outcomes":
        """Arrange trials by condition and prompt; prompts are in sample order whatever batches and processes ran them.

        Args:
            trials: All of them.
            members: For each condition, the names that its trials have: one, or one for each random set.

        """
        # A resumed run may hold trials of an earlier version, which lack metrics: only common ones are reported.
        metrics = [name for name in trials[0]["metrics"] if all(name in trial["metrics"] for trial in trials)]
        rows = {(trial["sample"], trial["condition"]): {**trial, **trial["metrics"]} for trial in trials}
        samples = sorted({sample for sample, _ in rows})

        def cells(value: str, names: Sequence[str]) -> Cells:
            grid = np.array([[rows[sample, name][value] for sample in samples] for name in names], np.float64)
            return grid[0] if len(names) == 1 else grid

        values = {
            value: {condition: cells(value, names) for condition, names in members.items()}
            for value in (*metrics, *HEAD_COUNTS)
        }
        length, depth = (cells(name, [NoAblation.name]) for name in ("length", "depth"))
        return cls(list(members), metrics, values, length, depth)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.length)

    def baseline_correct(self) -> Chosen:
        """Prompts that the model answers correctly without ablation."""
        correct: NDArray[np.bool_] = self.values[self.metrics[0]][NoAblation.name] == 1
        return correct

    def groups(self) -> dict[str, Chosen]:
        """The prompts of each of `GROUPS`."""
        return dict(zip(GROUPS, (np.ones(len(self), dtype=bool), self.baseline_correct()), strict=True))

    def estimates(self, chosen: Chosen, bootstrap: Bootstrap) -> dict[str, dict[str, dict[str, float | None]]]:
        """Mean of every value under every condition over the chosen prompts, with its 95 % interval and n."""
        return {
            condition: {
                name: _mean(values[condition][..., chosen], self._is_share(name), bootstrap)
                for name, values in self.values.items()
            }
            for condition in self.conditions
        }

    def _is_share(self, name: str) -> bool:
        return name in self.metrics and all(np.isin(cells, (0, 1)).all() for cells in self.values[name].values())

    def pairs(self, chosen: Chosen, bootstrap: Bootstrap) -> list[dict[str, Any]]:
        """Paired comparison of every two conditions on the chosen prompts, by each metric.

        Comparisons with the reference (see `reference_condition`) have Holm's correction, for each metric.
        """
        reference, pairs = reference_condition(self.conditions), list[dict[str, Any]]()
        for name in self.metrics:
            values = {condition: cells[..., chosen] for condition, cells in self.values[name].items()}
            pairs += compare_conditions(values, name, reference, bootstrap)
        return pairs

    def heatmaps(self, grid: HeatmapGrid, bootstrap: Bootstrap) -> dict[str, Any]:
        """Centres of both axes, and by metric and condition the cells that hold a prompt.

        A cell is `depth` and `length`, its indices along the axes, and the mean of the metric with its interval and n.
        """
        depth, length = grid.locate(self.length, self.depth)
        held = sorted({(int(d), int(t)) for d, t in zip(depth, length, strict=True) if d >= 0})
        inside = {cell: (depth == cell[0]) & (length == cell[1]) for cell in held}
        return {
            **{name: grid.axis(name).tolist() for name in ("lengths", "depths")},
            "metrics": {
                metric: {
                    condition: [
                        {"depth": d, "length": t, **_mean(values[..., prompts], self._is_share(metric), bootstrap)}
                        for (d, t), prompts in inside.items()
                    ]
                    for condition, values in self.values[metric].items()
                }
                for metric in self.metrics[:2]
            },
        }


def _mean(values: Cells, share: bool, bootstrap: Bootstrap) -> dict[str, float | None]:
    mean = float(values.mean()) if values.size else float("nan")
    return Estimate(mean, *mean_interval(values, share, bootstrap), values.shape[-1]).as_dict()
