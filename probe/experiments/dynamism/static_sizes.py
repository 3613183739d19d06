"""Jaccard index of dynamic heads with static sets of several sizes (Table 1 with other sizes than 20)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from probe.metrics import Interval, bootstrap

SIZE_METRICS = ("jaccard_static", "jaccard_static_non_empty", "static_coverage")
"""Metrics of each size, by the names of `StaticSizeSums.metrics` before `_top_N`."""


class StaticSizes(Metric):
    """Sums over each sample, from which the Jaccard index with each static set follows for any weighting of samples.

    Args:
        sizes: Sizes of the static sets.

    Two heads over two steps of one sample, with static sets of one and of two heads:

    >>> metric = StaticSizes([1, 2])
    >>> active = torch.tensor([[True, False], [True, True]])
    >>> metric.update(active, sample=torch.tensor([0, 0]), sets=torch.tensor([[True, False], [True, True]]))
    >>> values = metric.compute().metrics()
    >>> values["jaccard_static_top_1"], values["jaccard_static_top_2"], round(values["static_coverage_top_1"], 3)
    (0.75, 0.75, 0.667)

    """

    full_state_update = False
    sample: list[Tensor]
    sums: list[Tensor]

    def __init__(self, sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = tuple(sizes)
        for name in ("sample", "sums"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, active: Bool[Tensor, "row head"], sample: Int[Tensor, "row"], sets: Bool[Tensor, "set head"]
    ) -> None:
        """Add whole samples.

        Args:
            active: Dynamic heads of each row, a generated token.
            sample: Sample number of each row; rows of a sample are consecutive.
            sets: The static set of each size.

        """
        units, unit = torch.unique_consecutive(sample, return_inverse=True)
        # |a ∩ s| for every step and set in one product; counts of heads are exact in float32.
        shared = (active.float() @ sets.float().T).double()
        number = active.sum(1, keepdim=True).double()
        union = number + sets.sum(1) - shared
        steps = torch.cat([torch.ones_like(number), (number > 0).double(), number, shared / union, shared], dim=1)
        sums = torch.zeros(len(units), steps.shape[1], dtype=torch.float64, device=active.device)
        self.sample.append(units)
        self.sums.append(sums.index_add_(0, unit, steps))

    def compute(self) -> "StaticSizeSums":
        """The sums of all samples so far, in sample order whatever the batches and processes were."""
        sample, sums = (dim_zero_cat(x).cpu() for x in (self.sample, self.sums))
        return StaticSizeSums(self.sizes, sums[torch.argsort(sample, stable=True)].numpy())


@dataclass  # not frozen: torchmetrics refuses frozen results
class StaticSizeSums:
    """What the metrics of each size are computed from.

    Attributes:
        sizes: Sizes of the static sets.
        sums: Of each sample: steps, steps with dynamic heads, dynamic heads, then for each size the Jaccard indices,
            then for each size the dynamic heads that are static.

    >>> StaticSizeSums((20,), np.array([[2.0, 1, 4, 0.2, 3]])).metrics()["static_coverage_top_20"]
    0.75

    """

    sizes: tuple[int, ...]
    sums: Float[np.ndarray, "sample sum"]

    def metrics(self, weights: Float[np.ndarray, "sample"] | None = None) -> dict[str, float]:
        """Metrics of each size, each sample counted `weights` times (once by default).

        `jaccard_static`: mean over steps, 0 for a step without dynamic heads; `jaccard_static_non_empty`: over steps
        with any; `static_coverage`: share of all dynamic heads that are in the static set.
        """
        weight = np.ones(len(self.sums)) if weights is None else weights
        (steps, some, heads), rest = np.split(weight @ self.sums, [3])
        jaccards, shared = np.split(rest, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = zip(jaccards / steps, jaccards / some, shared / heads, strict=True)
        return {
            f"{name}_top_{size}": float(value)
            for size, row in zip(self.sizes, values, strict=True)
            for name, value in zip(SIZE_METRICS, row, strict=True)
        }

    def intervals(self, resamples: int, seed: int) -> dict[str, Interval]:
        """95 % bootstrap intervals over samples."""
        return bootstrap(self.metrics, len(self.sums), resamples, seed)
