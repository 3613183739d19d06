"""Whole samples in step order, for statistics that follow a head from one step to the next."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.columns import Columns
from datamodules.row_batches import Rows
from datamodules.samplers import Share
from datamodules.score_rows import ScoreRows
from extract.errors import UserError
from extract.utils import PositiveInt


class WholeSamples(Dataset[Rows]):
    """Batches of whole samples, by batch number; the number past the last is an empty batch.

    Args:
        columns: Of the store.
        rows: Rows of the store that make up whole samples, ascending.
        batch_rows: Rows a batch; the last sample of a batch is taken whole and may exceed it.
        hidden: Read hidden states, too; without them `Rows.hidden` has no columns.
        partners: For each of `rows` the row of the store whose scores replace its own.

    """

    def __init__(
        self,
        columns: Columns,
        rows: NDArray[np.int64],
        batch_rows: int,
        hidden: bool,
        partners: NDArray[np.int64] | None = None,
    ) -> None:
        self.columns, self.rows, self.hidden = columns, rows, hidden
        self.partners = partners
        sample = columns.sample[rows]
        starts = np.flatnonzero(np.diff(sample, prepend=-1))
        first = np.flatnonzero(np.diff(starts // batch_rows, prepend=-1))
        self.edges = [*starts[first].tolist(), len(rows)]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.edges) - 1

    def __getitem__(self, number: int) -> Rows:
        """One batch."""
        inside = slice(self.edges[number], self.edges[number + 1]) if number < len(self) else slice(0, 0)
        rows = self.rows[inside]
        hidden = self.columns.hidden.take(rows) if self.hidden else np.empty((len(rows), 0), np.float32)
        scores = torch.from_numpy(self._scores(rows if self.partners is None else self.partners[inside])).float()
        sample, step = (torch.from_numpy(column[rows]) for column in (self.columns.sample, self.columns.step))
        return Rows(torch.from_numpy(hidden).float(), scores, sample, step, torch.empty(len(rows), 0))

    def _scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of rows in any order: they are read in ascending order and put back."""
        order = np.argsort(rows, kind="stable")
        taken = self.columns.scores.take(rows[order])
        scores: NDArray[np.float32] = np.empty_like(taken)
        scores[order] = taken
        return scores


@dataclass(frozen=True)
class Pass:
    """One pass over whole samples, a loader of `lightning test`.

    Attributes:
        part: Training samples or evaluation samples.
        group: Only the samples of this group (delete-a-group jackknife); None for all.
        null: Permutation null: each sample gets the scores of another sample at the same step (`step`), or `shifted` by
            a random number of steps.
        repeat: Number of the null's random permutation.

    """

    part: Literal["train", "evaluation"]
    group: int | None = None
    null: Literal["step", "shifted"] | None = None
    repeat: int = 0


class Sequences(ScoreRows):
    """Training samples, then evaluation samples, whole and in step order: the two loaders of `lightning test`.

    Args:
        evaluation: `held_out`: validation and test samples. `all`: every sample, training ones included, which leaks.
            A `test_store` replaces either by all of its samples.
        hidden: Read hidden states, too.
        batch_size: Rows a batch; a batch's last sample is taken whole.
        **kwargs: `store`, `target`, `split`, `test_store`, `num_workers` and `verify` of `ScoreRows`.

    """

    def __init__(
        self,
        evaluation: Literal["held_out", "all"] = "held_out",
        hidden: bool = False,
        batch_size: PositiveInt = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, offset=0, seed=0, **kwargs)
        self.evaluation, self.hidden = evaluation, hidden

    def setup(self, stage: str) -> None:
        """Open the columns and divide the samples.

        Raises:
            UserError: a split of single rows, or what `ScoreRows` refuses.

        """
        if self.split.by != "sample":
            raise UserError("data.split.by: this data module needs whole samples, so it must be `sample`")
        super().setup(stage)

    def part_rows(self, part: Literal["train", "evaluation"]) -> tuple[Columns, NDArray[np.int64]]:
        """The store's columns, and in them the rows of the training or of the evaluation samples, ascending."""
        if part == "train":
            return self._columns["train"], self._rows["train"]
        columns = self._columns["test"]
        if self.test_path is not None:
            return columns, self._rows["test"]
        if self.evaluation == "all":
            return columns, np.arange(len(columns.sample))
        return columns, np.sort(np.concatenate([self._rows["val"], self._rows["test"]]))

    def evaluation_samples(self) -> list[int]:
        """Numbers of the evaluation samples."""
        columns, rows = self.part_rows("evaluation")
        samples: list[int] = np.unique(columns.sample[rows]).tolist()
        return samples

    def passes(self) -> list[Pass]:
        """The passes of `lightning test`, in order."""
        return [Pass("train"), Pass("evaluation")]

    def whole_samples(self, which: Pass) -> WholeSamples:
        """Batches of a pass."""
        columns, rows = self.part_rows(which.part)
        return WholeSamples(columns, rows, self.batch_size, self.hidden)

    def test_dataloader(self) -> list[DataLoader[Rows]]:
        """A loader for each pass."""
        assert self.trainer is not None
        loaders = []
        for which in self.passes():
            samples = self.whole_samples(which)
            share = Share(len(samples), self.trainer.global_rank, self.trainer.world_size)
            loaders.append(DataLoader(samples, batch_size=None, sampler=share, num_workers=self.num_workers))
        return loaders
