"""Outcomes of conditions on the same prompts: figures with intervals, pairs, and what the plain model solves."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from extract.generation import AblatedGeneration
from probe.experiments.ablation.conditions import NoAblation
from probe.metrics import mean_interval, paired
from probe.results import Trial

EXTRA = ("ablated", "dynamic", "compensated", "compensated_static", "steps")


@dataclass(frozen=True)
class Outcomes:
    """Trials as arrays.

    Attributes:
        conditions: Names, in the order of the config.
        metrics: Names of the task's metrics; the first is 0 or 1 and says whether a prompt is solved.
        values: Of each metric, and of each of `EXTRA`, by condition and prompt.
        length, depth: Of each prompt's context: tokens, and percent.

    """

    conditions: list[str]
    metrics: list[str]
    values: dict[str, Float[NDArray[np.float64], "condition prompt"]]
    length: Float[NDArray[np.float64], "prompt"]
    depth: Float[NDArray[np.float64], "prompt"]

    @classmethod
    def of(cls, trials: Sequence[Trial], conditions: list[str]) -> "Outcomes":
        """Arrange trials; prompts are in sample order, whatever batches and processes ran them."""
        rows = {(trial["sample"], trial["condition"]): trial for trial in trials}
        samples = sorted({sample for sample, _ in rows})
        metrics = list(trials[0]["metrics"])

        def array(read: Any) -> NDArray[np.float64]:
            return np.array([[read(rows[sample, name]) for sample in samples] for name in conditions], np.float64)

        values = {name: array(lambda trial, name=name: trial["metrics"][name]) for name in metrics}
        values |= {name: array(lambda trial, name=name: trial[name]) for name in EXTRA}
        length, depth = (array(lambda trial, name=name: trial[name])[0] for name in ("length", "depth"))
        return cls(conditions, metrics, values, length, depth)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.length)

    def solved(self) -> Bool[NDArray[np.bool_], "prompt"]:
        """Prompts that the unmasked model solves: only on these can ablation do harm."""
        right: NDArray[np.bool_] = self.values[self.metrics[0]][self.conditions.index(NoAblation.name)] == 1
        return right

    def groups(self) -> dict[str, Bool[NDArray[np.bool_], "prompt"]]:
        """All prompts, and those the unmasked model solves."""
        return {"all": np.ones(len(self), dtype=bool), "solved": self.solved()}

    def figures(
        self, chosen: Bool[NDArray[np.bool_], "prompt"], resamples: int, seed: int
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Mean of every value under every condition over the chosen prompts, with its n and 95 % interval."""
        shares = {name for name in self.metrics if np.isin(self.values[name], (0, 1)).all()}
        found: dict[str, dict[str, dict[str, float]]] = {}
        for row, condition in enumerate(self.conditions):
            cells = {}
            for name, grid in self.values.items():
                values = grid[row, chosen]
                low, high = mean_interval(values, name in shares, resamples, seed)
                mean = float(values.mean()) if len(values) else float("nan")
                cells[name] = {"value": mean, "low": low, "high": high, "n": len(values)}
            found[condition] = cells
        return found

    def pairs(self, chosen: Bool[NDArray[np.bool_], "prompt"], resamples: int, seed: int) -> list[dict[str, Any]]:
        """Every two conditions on the chosen prompts, by the first two metrics."""
        return [
            {"first": a, "second": b, "metric": name, **paired(x[chosen], y[chosen], resamples, seed).as_dict()}
            for name in self.metrics[:2]
            for (a, x), (b, y) in combinations(zip(self.conditions, self.values[name], strict=True), 2)
        ]


def heads_of(generation: AblatedGeneration, static: Bool[Tensor, "head"]) -> dict[str, int | float]:
    """Heads of a generation in numbers.

    Steps; dynamic and ablated heads a step, on average; compensated heads of the step that has most, all of them and
    those of a static set: m(s).
    """
    new = generation.compensated()
    return {
        "steps": len(generation.tokens),
        "dynamic": float(generation.before.sum(dim=1).double().mean()),
        "ablated": float(generation.ablated.sum(dim=1).double().mean()),
        "compensated": int(new.sum(dim=1).max()),
        "compensated_static": int((new & static).sum(dim=1).max()),
    }
