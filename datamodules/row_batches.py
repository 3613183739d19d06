"""Batches of score rows: hidden states and the scores of all heads, gathered from memory maps."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.columns import Columns


class Rows(NamedTuple):
    """A batch of score rows.

    Attributes:
        hidden: Final hidden states. Without columns where they are not read.
        scores: Score of each head: 0 or 1 (Eq. 1), or in [0, 1] with NaN for none (Eq. 2).
        sample: Sample number of each row.
        step: Step number of each row in its sample, from 0.
        known: Last scores before those to predict: of the row's own step, where later scores are to be predicted, else
            of the step before; NaN at a first step. Without columns where they are not read.

    """

    hidden: Float[Tensor, "row hidden"]
    scores: Float[Tensor, "row head"]
    sample: Int[Tensor, "row"]
    step: Int[Tensor, "row"]
    known: Float[Tensor, "row head"]


class RowBatches(Dataset[Rows]):
    """Batches of a split by (batch number, epoch); the number past the last is an empty batch.

    Args:
        columns: Of the store that holds the split.
        rows: Rows of the store in this split, whose hidden states are read.
        offset: The scores are those of `offset` rows later.
        batch_size: Rows a batch.
        seed: Shuffle the rows anew each epoch; None keeps their order.
        known: Read `Rows.known`, too, which baselines predict from.
        hidden: Read hidden states; statistics of scores do without them.

    """

    def __init__(
        self,
        columns: Columns,
        rows: NDArray[np.int64],
        offset: int,
        batch_size: int,
        seed: int | None = None,
        known: bool = True,
        hidden: bool = True,
    ) -> None:
        self.columns, self.known, self.hidden = columns, known, hidden
        self.rows, self.offset, self.batch_size, self.seed = rows, offset, batch_size, seed
        self._shuffled: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.rows) / self.batch_size)

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """The split's rows in an epoch's order, which seed and epoch alone determine, on every process."""
        if self.seed is None:
            return self.rows
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
            self._shuffled = (epoch, self.rows[order])
        return self._shuffled[1]

    def batch(self, number: int, epoch: int = 0) -> Rows:
        """A batch of an epoch. Shuffling decides which rows share a batch; within it they are in the store's order."""
        rows = np.sort(self.epoch_rows(epoch)[number * self.batch_size : (number + 1) * self.batch_size])
        return self.read(rows)

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the store by their numbers, which must ascend."""
        return self._batch(rows, self.scores_at(rows, self.offset), last_known=0 if self.offset else -1)

    def _batch(self, rows: NDArray[np.int64], scores: Tensor, last_known: int) -> Rows:
        hidden = torch.from_numpy(self.columns.hidden.take(rows)).float() if self.hidden else torch.empty(len(rows), 0)
        known = self.scores_at(rows, last_known) if self.known else torch.empty(len(rows), 0)
        sample, step = (torch.from_numpy(column[rows]) for column in (self.columns.sample, self.columns.step))
        return Rows(hidden, scores, sample, step, known)

    def scores_at(self, rows: NDArray[np.int64], shift: int) -> Float[Tensor, "row head"]:
        """Scores `shift` steps later in the same sample (earlier, if negative); NaN where it has no such step."""
        sample = self.columns.sample
        there = np.clip(rows + shift, 0, len(sample) - 1)
        scores = torch.from_numpy(self.columns.scores.take(there)).float()
        inside = (there == rows + shift) & (sample[there] == sample[rows])
        if not inside.all():
            scores[~torch.from_numpy(inside)] = torch.nan
        return scores

    def __getitem__(self, key: tuple[int, int] | int) -> Rows:
        """The batch of a (number, epoch) pair of `EpochShare`, or of a number alone in the first epoch.

        Numbers come from the sampler that Lightning uses for `overfit_batches`: the same batches in every epoch.
        """
        return self.batch(key) if isinstance(key, int) else self.batch(*key)
