"""Whole samples in further passes: with another sample's scores (nulls), and group by group (jackknife)."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules.sequences import Pass, Sequences, WholeSamples
from datamodules.splits import Split
from extract.errors import UserError
from extract.scores import Target

NULLS: tuple[Literal["step", "shifted"], ...] = ("shifted", "step")


class ResampledSequences(Sequences):
    """Hidden states and scores of whole samples: training ones, evaluation ones, nulls of the former, groups of both.

    Args:
        store, target, split, evaluation, test_store, batch_size, num_workers, verify: See `Sequences`.
        permutations: Draws of each null. A null gives every training sample the scores of another one: from a random
            step on (`shifted`: nothing but chance is left) and from the first on (`step`: what the number of the step
            tells is left). A shorter partner begins again.
        groups: Groups that the jackknife leaves out in turn; 0 for no intervals.
        seed: Of nulls and groups.

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        evaluation: Literal["held_out", "all"] = "held_out",
        test_store: str | None = None,
        permutations: int = 5,
        groups: int = 10,
        seed: int = 0,
        batch_size: int = 4096,
        num_workers: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__(store, target, split, evaluation, test_store, True, batch_size, num_workers, verify)
        self.permutations, self.groups, self.resampling_seed = permutations, groups, seed

    def setup(self, stage: str) -> None:
        """Open the columns; there must be a sample for each group on either side."""
        if self.permutations < 0 or self.groups < 0 or self.groups == 1:
            raise UserError(
                f"data: permutations {self.permutations} and groups {self.groups} must be at least 0, and one group "
                "alone leaves nothing"
            )
        super().setup(stage)
        parts = (self.part_rows("train"), self.part_rows("evaluation"))
        fewest = min(len(np.unique(columns.sample[rows])) for columns, rows in parts)
        if fewest < max(2, self.groups):
            raise UserError(f"data.groups: {self.groups} groups of {fewest} samples; extract more, or lower it")

    def passes(self) -> list[Pass]:
        """All training samples, all evaluation ones, the nulls, then either side of each group."""
        nulls = [Pass("train", null=null, draw=draw) for null in NULLS for draw in range(self.permutations)]
        groups = [Pass(part, group=group) for group in range(self.groups) for part in ("train", "evaluation")]
        return [*super().passes(), *nulls, *groups]

    def whole_samples(self, which: Pass) -> WholeSamples:
        """Batches of a pass."""
        columns, rows = self.part_rows(which.part)
        if which.group is not None:
            rows = rows[self._group(columns.sample[rows]) == which.group]
        partners = None
        if which.null is not None:
            rng = np.random.default_rng([self.resampling_seed, which.draw])
            partners = rows[partner_places(columns.sample[rows], which.null == "shifted", rng)]
        return WholeSamples(columns, rows, self.batch_size, self.hidden, partners)

    def _group(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of each row: samples dealt out at random, as evenly as can be."""
        units, unit = np.unique(sample, return_inverse=True)
        dealt = np.random.default_rng([self.resampling_seed, len(units)]).permutation(len(units)) % self.groups
        group: NDArray[np.int64] = dealt[unit]
        return group

    def centres(self, limit: int = 4096) -> tuple[Float[Tensor, "hidden"], Float[Tensor, "head"]]:
        """About the means of hidden states and scores: those of an even choice of training rows."""
        columns, rows = self.part_rows("train")
        chosen = rows[:: max(1, -(-len(rows) // limit))]
        hidden, scores = (torch.from_numpy(side.take(chosen)).float() for side in (columns.hidden, columns.scores))
        return hidden.mean(dim=0), scores.nanmean(dim=0).nan_to_num()


def partner_places(sample: NDArray[np.int64], shifted: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each row, the place of another sample's row that takes its part.

    Every sample follows one partner, in step order, from its first step or from a random one; where the partner ends
    it begins again. No sample is its own partner, and each is a partner once.

    Args:
        sample: Sample number of each row; rows of a sample lie together. Two samples at least.
        shifted: Begin at a random step.
        rng: The source of chance.

    """
    starts = np.flatnonzero(np.diff(sample, prepend=-1))
    lengths = np.diff(starts, append=len(sample))
    ring = rng.permutation(len(starts))
    partner = np.empty_like(ring)
    partner[ring] = np.roll(ring, 1)  # the next one on a ring: nobody is next to itself
    shift = (rng.random(len(starts)) * lengths[partner]).astype(np.int64) if shifted else np.zeros_like(starts)
    unit = np.repeat(np.arange(len(starts)), lengths)
    step = np.arange(len(sample)) - starts[unit]
    places: NDArray[np.int64] = starts[partner[unit]] + (step + shift[unit]) % lengths[partner[unit]]
    return places
