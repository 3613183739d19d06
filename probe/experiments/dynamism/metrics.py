"""How the heads that score change from step to step (claim 1): figures of Table 1, per sample and in all."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from probe.metrics import Interval, bootstrap

SUMS = ("steps", "none", "heads", "squared", "static", "static_some", "pairs", "adjacent", "pairs_some", "pairs_any")
FIGURES = (
    *("jaccard_static", "jaccard_static_non_empty", "jaccard_adjacent", "jaccard_adjacent_non_empty"),
    *("jaccard_adjacent_empty_is_one", "entropy", "heads_per_step", "heads_per_step_sd", "heads_ever", "steps_without"),
)


def jaccard(a: Bool[Tensor, "row head"], b: Bool[Tensor, "row head"]) -> Float[Tensor, "row"]:
    """Shared heads of two sets by heads in either; 0 where both are empty, which callers count as they say."""
    return (a & b).sum(1).double() / (a | b).sum(1).clamp(min=1)


def top_heads(scores: Float[Tensor, "head"], n: int) -> Bool[Tensor, "head"]:
    """The `n` heads of highest score, ties by number."""
    chosen = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    chosen[torch.argsort(scores, descending=True, stable=True)[:n]] = True
    return chosen


class Turnover(Metric):
    """Sums over each sample, from which every figure follows for any weighting of samples.

    A step's dynamic heads are those that score at it. Static and dynamic heads: a step without any has Jaccard 0 with
    the static set, or is left out (`…_non_empty`). Adjacent steps: a pair of empty sets is left out and one empty set
    gives 0; or only pairs of which both hold heads count (`…_non_empty`); or two empty sets are equal, 1
    (`…_empty_is_one`).

    Args:
        num_heads: Heads of the LLM.

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
        """Add whole samples, rows in step order: the heads that score, the sample of each row, the static heads."""
        units, unit = torch.unique_consecutive(sample, return_inverse=True)
        number = active.sum(1).double()
        some = (number > 0).double()
        fixed = jaccard(active, static.expand_as(active))
        pair = (sample[1:] == sample[:-1]).double()
        either = torch.maximum(some[1:], some[:-1]) * pair
        steps = torch.stack([torch.ones_like(some), 1 - some, number, number.square(), fixed, fixed * some], dim=1)
        shared = jaccard(active[1:], active[:-1]) * pair
        pairs = torch.stack([either, shared, some[1:] * some[:-1] * pair, pair], dim=1)
        sums = torch.zeros(len(units), len(SUMS), dtype=torch.float64, device=active.device)
        sums[:, : steps.shape[1]].index_add_(0, unit, steps)
        sums[:, steps.shape[1] :].index_add_(0, unit[:-1], pairs)
        counts = torch.zeros(len(units), self.num_heads, dtype=torch.float64, device=active.device)
        self.sample.append(units)
        self.sums.append(sums)
        self.counts.append(counts.index_add_(0, unit, active.double()))

    def compute(self) -> "TurnoverSums":
        """The sums of all samples so far, in sample order: batches and processes leave no trace."""
        sample, sums, counts = (dim_zero_cat(x).cpu() for x in (self.sample, self.sums, self.counts))
        order = torch.argsort(sample, stable=True)
        return TurnoverSums(sums[order].numpy(), counts[order].numpy())


class TurnoverSums:
    """Sums of each sample (columns `SUMS`) and activations of each head in it."""

    def __init__(self, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> None:
        self.sums, self.counts = sums, counts

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The figures by name (`FIGURES`), each sample counted `weights` times (once by default)."""
        weight = np.ones(len(self.sums)) if weights is None else weights
        total = dict(zip(SUMS, weight @ self.sums, strict=True))
        counts = weight @ self.counts
        with np.errstate(divide="ignore", invalid="ignore"):
            steps, share = total["steps"], counts / counts.sum()
            mean = total["heads"] / steps
            figures = (
                total["static"] / steps,
                total["static_some"] / (steps - total["none"]),
                total["adjacent"] / total["pairs"],
                total["adjacent"] / total["pairs_some"],
                (total["adjacent"] + total["pairs_any"] - total["pairs"]) / total["pairs_any"],
                -np.sum(share * np.log(np.where(share > 0, share, 1))),
                mean,
                np.sqrt(max(total["squared"] / steps - mean**2, 0)),
                (counts > 0).sum(),
                total["none"] / steps,
            )
        return {name: float(figure) for name, figure in zip(FIGURES, figures, strict=True)}

    def intervals(self, resamples: int, seed: int) -> dict[str, Interval]:
        """95 % bootstrap intervals over samples.

        `heads_ever` has none: a resample holds fewer different samples, so its count is smaller throughout.
        """
        found = bootstrap(self.figures, len(self.sums), resamples, seed)
        return {name: bounds for name, bounds in found.items() if name != "heads_ever"}


def shuffle_steps(active: Bool[Tensor, "row head"], sample: Int[Tensor, "row"], seed: int) -> Bool[Tensor, "row head"]:
    """Each head's activations permuted over the steps of its sample: what is left without dynamics.

    The permutation is fixed by seed and sample number, whatever the batch.
    """
    units, lengths = torch.unique_consecutive(sample, return_counts=True)
    keys = []
    for unit, length in zip(units.tolist(), lengths.tolist(), strict=True):
        rng = np.random.default_rng([seed, unit])
        keys.append(torch.from_numpy(rng.random((length, active.shape[1]))))
    if not keys:
        return active
    place = torch.repeat_interleave(torch.arange(len(units)), lengths)
    order = torch.argsort(torch.cat(keys) + place[:, None], dim=0)  # keys of a sample lie in [place, place + 1)
    return torch.gather(active, 0, order.to(active.device))
