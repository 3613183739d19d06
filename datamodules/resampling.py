"""Whole samples in further passes: with permuted scores (null distributions), and group by group (jackknife)."""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from datamodules.sequences import Pass, Sequences, WholeSamples
from extract.errors import UserError
from extract.utils import Repetitions, Seed

NULLS: tuple[Literal["step", "shifted"], ...] = ("shifted", "step")
"""Permutation nulls, in the order of their passes."""


class ResampledSequences(Sequences):
    """Hidden states and scores of whole samples, with permutation nulls and jackknife groups.

    A null pairs every training sample's hidden states with the scores of another training sample. `shifted` begins at a
    random step of that sample, so that only chance is left; `step` begins at its first, so that what the step number
    alone predicts remains. A partner that is too short begins again.

    Args:
        permutations: Random permutations of each null.
        groups: Groups of samples that the delete-a-group jackknife leaves out in turn; 0 for no intervals.
        seed: Of permutations and groups.
        **kwargs: See `Sequences`.

    """

    def __init__(self, permutations: Repetitions = 5, groups: Repetitions = 10, seed: Seed = 0, **kwargs: Any) -> None:
        super().__init__(hidden=True, **kwargs)
        self.permutations, self.groups, self.resampling_seed = permutations, groups, seed

    def setup(self, stage: str) -> None:
        """Open the columns.

        Raises:
            UserError: fewer samples than groups, or what `Sequences` refuses.

        """
        if self.permutations < 0 or self.groups < 0 or self.groups == 1:
            raise UserError(
                f"data: permutations {self.permutations} and groups {self.groups} must be at least 0, and groups not 1"
            )
        super().setup(stage)
        parts = (self.part_rows("train"), self.part_rows("evaluation"))
        fewest = min(len(np.unique(columns.sample[rows])) for columns, rows in parts)
        if fewest < max(2, self.groups):
            raise UserError(f"data.groups: {self.groups} groups of {fewest} samples; extract more, or lower it")

    def passes(self) -> list[Pass]:
        """All training samples, all evaluation samples, the nulls, then training and evaluation samples by group."""
        nulls = [Pass("train", null=null, repeat=repeat) for null in NULLS for repeat in range(self.permutations)]
        groups = [Pass(part, group=group) for group in range(self.groups) for part in ("train", "evaluation")]
        return [*super().passes(), *nulls, *groups]

    def whole_samples(self, which: Pass) -> WholeSamples:
        """Batches of a pass."""
        columns, rows = self.part_rows(which.part)
        if which.group is not None:
            rows = rows[self._group(columns.sample[rows]) == which.group]
        partners = None
        if which.null is not None:
            rng = np.random.default_rng([self.resampling_seed, which.repeat])
            partners = rows[partner_places(columns.sample[rows], which.null == "shifted", rng)]
        return WholeSamples(columns, rows, self.batch_size, self.hidden, partners)

    def _group(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        """Jackknife group of each row: a random partition of the samples into groups of nearly equal size."""
        samples, index = np.unique(sample, return_inverse=True)
        rng = np.random.default_rng([self.resampling_seed, len(samples)])
        group: NDArray[np.int64] = (rng.permutation(len(samples)) % self.groups)[index]
        return group

    def centres(self, limit: int = 4096) -> tuple[Float[Tensor, "hidden"], Float[Tensor, "head"]]:
        """Approximate means of hidden states and scores, from at most `limit` evenly spaced training rows."""
        columns, rows = self.part_rows("train")
        chosen = rows[:: max(1, -(-len(rows) // limit))]
        hidden, scores = (torch.from_numpy(side.take(chosen)).float() for side in (columns.hidden, columns.scores))
        return hidden.mean(dim=0), scores.nanmean(dim=0).nan_to_num()


def partner_places(sample: NDArray[np.int64], shifted: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """Permutation of samples: for each row, the place of another sample's row that replaces it.

    Every sample has one partner, whose rows replace its own in step order and begin again where they end. No sample is
    its own partner, and each is a partner once.

    Args:
        sample: Sample number of each row; rows of a sample are consecutive. At least two samples.
        shifted: Begin at a random step of the partner instead of its first.
        rng: Random generator.

    >>> partner_places(np.array([7, 7, 7, 8, 8]), shifted=False, rng=np.random.default_rng(0)).tolist()
    [3, 4, 3, 0, 1]

    """
    starts = np.flatnonzero(np.diff(sample, prepend=-1))
    lengths = np.diff(starts, append=len(sample))
    cycle = rng.permutation(len(starts))
    partner = np.empty_like(cycle)
    partner[cycle] = np.roll(cycle, 1)  # one cycle through all samples has no fixed point
    shift = (rng.random(len(starts)) * lengths[partner]).astype(np.int64) if shifted else np.zeros_like(starts)
    own = np.repeat(np.arange(len(starts)), lengths)
    step = np.arange(len(sample)) - starts[own]
    places: NDArray[np.int64] = starts[partner[own]] + (step + shift[own]) % lengths[partner[own]]
    return places
