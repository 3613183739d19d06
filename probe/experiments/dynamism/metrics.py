"""Metrics of Table 1: how the dynamic heads change from step to step, by sample and in all (claim 1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from probe.metrics import Interval, bootstrap

SUMS = ("steps", "none", "heads", "squared", "static", "static_some", "pairs", "adjacent", "pairs_some", "pairs_any")
"""Sums over a sample: of steps (the first six), then of pairs of adjacent steps."""
METRICS = (
    *("jaccard_static", "jaccard_static_non_empty", "jaccard_adjacent", "jaccard_adjacent_non_empty"),
    *("jaccard_adjacent_empty_is_one", "entropy", "heads_per_step", "heads_per_step_sd", "heads_ever", "steps_without"),
)


def jaccard(a: Bool[Tensor, "row head"], b: Bool[Tensor, "row head"]) -> Float[Tensor, "row"]:
    """Jaccard index |a ∩ b| / |a ∪ b| of the head sets of each row; 0 where both are empty.

    >>> a = torch.tensor([[True, True, False], [False, False, False]])
    >>> b = torch.tensor([[True, False, True], [False, False, False]])
    >>> jaccard(a, b)
    tensor([0.3333, 0.0000], dtype=torch.float64)

    """
    return (a & b).sum(1).double() / (a | b).sum(1).clamp(min=1)


def adjacent_jaccard(active: Bool[Tensor, "step head"]) -> Float[Tensor, "pair"]:
    """Jaccard index of each step's dynamic heads with the next step's (Table 1).

    >>> adjacent_jaccard(torch.tensor([[True, True], [True, True], [False, True], [False, False]]))
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)

    """
    return jaccard(active[1:], active[:-1])


def entropy(counts: Float[np.ndarray, "head"]) -> float:
    """Entropy over heads in nats: -Σ p ln p, p being a head's share of all activations (Table 1).

    NaN without any activation.

    >>> round(entropy(np.ones(20)), 4)  # 20 heads that score equally often: ln 20
    2.9957

    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = counts / counts.sum()
    return float(-np.sum(share * np.log(np.where(share > 0, share, 1))))


class DynamismMetric(Metric):
    """Sums over each sample, from which every metric follows for any weighting of the samples.

    Empty sets, which the paper leaves open. Static set: a step without dynamic heads has Jaccard 0, or is left out
    (`…_non_empty`). Adjacent steps: a pair of empty sets is left out and a pair with one empty set has Jaccard 0; or
    only pairs of non-empty sets count (`…_non_empty`); or two empty sets have Jaccard 1 (`…_empty_is_one`).

    Args:
        num_heads: Heads of the LLM.

    Two heads over three steps of one sample, of which head 0 is static:

    >>> metric = DynamismMetric(num_heads=2)
    >>> active = torch.tensor([[True, False], [True, True], [False, True]])
    >>> metric.update(active, sample=torch.tensor([0, 0, 0]), static=torch.tensor([True, False]))
    >>> values = metric.compute().metrics()
    >>> values["jaccard_static"], values["jaccard_adjacent"], round(values["entropy"], 4)
    (0.5, 0.5, 0.6931)

    """

    full_state_update = False
    sample: list[Tensor]
    sums: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        for name in ("sample", "sums", "counts"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        active: Bool[Tensor, "row head"],
        sample: Int[Tensor, "row"],
        static: Bool[Tensor, "head"],
    ) -> None:
        """Add whole samples.

        Args:
            active: Dynamic heads of each row, a generated token; rows in step order.
            sample: Sample number of each row.
            static: The static heads.

        """
        units, unit = torch.unique_consecutive(sample, return_inverse=True)
        # Steps, one row of sums each.
        number = active.sum(1).double()
        some = (number > 0).double()
        fixed = jaccard(active, static.expand_as(active))
        steps = torch.stack([torch.ones_like(some), 1 - some, number, number.square(), fixed, fixed * some], dim=1)
        # Pairs of adjacent steps; a pair over the border of two samples is none.
        pair = (sample[1:] == sample[:-1]).double()
        either = torch.maximum(some[1:], some[:-1]) * pair
        both = some[1:] * some[:-1] * pair
        pairs = torch.stack([either, adjacent_jaccard(active) * pair, both, pair], dim=1)
        # Added up by sample.
        sums = torch.zeros(len(units), len(SUMS), dtype=torch.float64, device=active.device)
        sums[:, : steps.shape[1]].index_add_(0, unit, steps)
        sums[:, steps.shape[1] :].index_add_(0, unit[:-1], pairs)
        counts = torch.zeros(len(units), self.num_heads, dtype=torch.float64, device=active.device)
        self.sample.append(units)
        self.sums.append(sums)
        self.counts.append(counts.index_add_(0, unit, active.double()))

    def compute(self) -> "DynamismSums":
        """The sums of all samples so far, in sample order whatever the batches and processes were."""
        sample, sums, counts = (dim_zero_cat(x).cpu() for x in (self.sample, self.sums, self.counts))
        order = torch.argsort(sample, stable=True)
        return DynamismSums(sums[order].numpy(), counts[order].numpy())


@dataclass  # not frozen: torchmetrics refuses frozen results
class DynamismSums:
    """What the metrics are computed from.

    Attributes:
        sums: Of each sample, columns `SUMS`.
        counts: Steps of each sample at which each head is dynamic.

    One sample of two steps with one and three dynamic heads:

    >>> sums = DynamismSums(np.array([[2.0, 0, 4, 10, 1, 1, 1, 1 / 3, 1, 1]]), np.array([[2.0, 1, 1]]))
    >>> values = sums.metrics()
    >>> values["heads_per_step"], values["heads_per_step_sd"], values["heads_ever"]
    (2.0, 1.0, 3.0)

    """

    sums: Float[np.ndarray, "sample sum"]
    counts: Float[np.ndarray, "sample head"]

    def metrics(self, weights: Float[np.ndarray, "sample"] | None = None) -> dict[str, float]:
        """The metrics by name (`METRICS`), each sample counted `weights` times (once by default)."""
        weight = np.ones(len(self.sums)) if weights is None else weights
        total = dict(zip(SUMS, weight @ self.sums, strict=True))
        counts = weight @ self.counts
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = total["steps"]
            mean = total["heads"] / steps
            values = (
                total["static"] / steps,
                total["static_some"] / (steps - total["none"]),
                total["adjacent"] / total["pairs"],
                total["adjacent"] / total["pairs_some"],
                (total["adjacent"] + total["pairs_any"] - total["pairs"]) / total["pairs_any"],
                entropy(counts),
                mean,
                np.sqrt(max(total["squared"] / steps - mean**2, 0)),
                (counts > 0).sum(),
                total["none"] / steps,
            )
        return {name: float(value) for name, value in zip(METRICS, values, strict=True)}

    def intervals(self, resamples: int, seed: int) -> dict[str, Interval]:
        """95 % bootstrap intervals over samples.

        `heads_ever` has none: a resample holds fewer different samples, so its count is biased downwards.
        """
        found = bootstrap(self.metrics, len(self.sums), resamples, seed)
        return {name: bounds for name, bounds in found.items() if name != "heads_ever"}


def shuffle_steps(active: Bool[Tensor, "row head"], sample: Int[Tensor, "row"], seed: int) -> Bool[Tensor, "row head"]:
    """Shuffled baseline: each head's activations permuted over the steps of its sample, apart from other heads'.

    It keeps how often each head scores in each sample, and destroys the order in time. The permutation depends on the
    seed and the sample number, not on the batch.

    >>> active = torch.tensor([[True, True], [False, False], [False, False]])
    >>> shuffle_steps(active, torch.tensor([0, 0, 0]), seed=0).sum(0)
    tensor([1, 1])

    """
    units, lengths = torch.unique_consecutive(sample.cpu(), return_counts=True)  # random numbers are the host's
    keys = []
    for unit, length in zip(units.tolist(), lengths.tolist(), strict=True):
        rng = np.random.default_rng([seed, unit])
        keys.append(torch.from_numpy(rng.random((length, active.shape[1]))))
    if not keys:
        return active
    place = torch.repeat_interleave(torch.arange(len(units)), lengths)
    # The n-th sample's keys lie in [n, n + 1): sorting all columns at once permutes within samples only.
    order = torch.argsort(torch.cat(keys) + place[:, None], dim=0)
    return torch.gather(active, 0, order.to(active.device))
