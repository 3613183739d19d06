"""Metrics of each condition on the same prompts: means with intervals, paired comparisons, heatmap cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from probe.experiments.ablation.conditions import NoAblation
from probe.experiments.ablation.heatmap_grid import HeatmapGrid
from probe.metrics import Bootstrap, Estimate, mean_interval, paired
from probe.results import Trial

HEAD_COUNTS = ("ablated", "dynamic", "compensated", "compensated_static", "steps")
GROUPS = ("all", "baseline_correct")
"""All prompts, and those that the model answers correctly without ablation: only on these can ablation do harm."""
Chosen = Bool[NDArray[np.bool_], "prompt"]


@dataclass(frozen=True)
class Outcomes:
    """Trials as arrays.

    Attributes:
        conditions: Names, in the order of the config.
        metrics: Names of the task's metrics; the first is 0 or 1, whether the answer is correct.
        values: Of each metric, and of each of `HEAD_COUNTS`, by condition and prompt.
        length, depth: Of each prompt's context and evidence: tokens, and percent.

    """

    conditions: list[str]
    metrics: list[str]
    values: dict[str, Float[NDArray[np.float64], "condition prompt"]]
    length: Float[NDArray[np.float64], "prompt"]
    depth: Float[NDArray[np.float64], "prompt"]

    @classmethod
    def of(cls, trials: Sequence[Trial], conditions: list[str]) -> "Outcomes":
        """Arrange trials by condition and prompt; prompts are in sample order whatever batches and processes ran."""
        rows = {(trial["sample"], trial["condition"]): trial for trial in trials}
        samples = sorted({sample for sample, _ in rows})
        metrics = list(trials[0]["metrics"])

        def array(read: Any) -> NDArray[np.float64]:
            return np.array([[read(rows[sample, name]) for sample in samples] for name in conditions], np.float64)

        values = {name: array(lambda trial, name=name: trial["metrics"][name]) for name in metrics}
        values |= {name: array(lambda trial, name=name: trial[name]) for name in HEAD_COUNTS}
        length, depth = (array(lambda trial, name=name: trial[name])[0] for name in ("length", "depth"))
        return cls(conditions, metrics, values, length, depth)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.length)

    def baseline_correct(self) -> Chosen:
        """Prompts that the model answers correctly without ablation."""
        correct: NDArray[np.bool_] = self.values[self.metrics[0]][self.conditions.index(NoAblation.name)] == 1
        return correct

    def groups(self) -> dict[str, Chosen]:
        """The prompts of each of `GROUPS`."""
        return dict(zip(GROUPS, (np.ones(len(self), dtype=bool), self.baseline_correct()), strict=True))

    def estimates(self, chosen: Chosen, bootstrap: Bootstrap) -> dict[str, dict[str, dict[str, float | None]]]:
        """Mean of every value under every condition over the chosen prompts, with its 95 % interval and n."""
        return {
            condition: {
                name: _mean(grid[row, chosen], self._is_share(name), bootstrap) for name, grid in self.values.items()
            }
            for row, condition in enumerate(self.conditions)
        }

    def _is_share(self, name: str) -> bool:
        return name in self.metrics and bool(np.isin(self.values[name], (0, 1)).all())

    def pairs(self, chosen: Chosen, bootstrap: Bootstrap) -> list[dict[str, Any]]:
        """Paired comparison of every two conditions on the chosen prompts, by the first two metrics."""
        return [
            {
                **{"first": a, "second": b, "metric": name},
                **paired(x[chosen], y[chosen], bootstrap.resamples, bootstrap.seed).as_dict(),
            }
            for name in self.metrics[:2]
            for (a, x), (b, y) in combinations(zip(self.conditions, self.values[name], strict=True), 2)
        ]

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
                        {"depth": d, "length": t, **_mean(values[prompts], self._is_share(metric), bootstrap)}
                        for (d, t), prompts in inside.items()
                    ]
                    for condition, values in zip(self.conditions, self.values[metric], strict=True)
                }
                for metric in self.metrics[:2]
            },
        }


def _mean(values: Float[NDArray[np.float64], "prompt"], share: bool, bootstrap: Bootstrap) -> dict[str, float | None]:
    low, high = mean_interval(values, share, bootstrap.resamples, bootstrap.seed)
    mean = float(values.mean()) if len(values) else float("nan")
    return Estimate(mean, low, high, len(values)).as_dict()
