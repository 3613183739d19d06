"""Whole samples in step order, for figures that follow a head from one step to the next."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.columns import Columns
from datamodules.samplers import Share
from datamodules.score_rows import Rows, ScoreRows
from datamodules.splits import Split
from extract.errors import UserError
from extract.scores import Target


class WholeSamples(Dataset[Rows]):
    """Batches of whole samples, by batch number; the number past the last is an empty batch.

    Args:
        columns: Of the store.
        rows: Store rows of whole samples, ascending.
        batch_rows: Rows a batch, save that the last sample of a batch is taken whole.
        hidden: Read hidden states too; without them `Rows.hidden` has no columns.
        partners: For each of `rows` the store row whose scores are read in its place.

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
        return Rows(torch.from_numpy(hidden).float(), scores, torch.from_numpy(self.columns.sample[rows]))

    def _scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of rows in any order; the store reads them in its own."""
        order = np.argsort(rows, kind="stable")
        taken = self.columns.scores.take(rows[order])
        scores: NDArray[np.float32] = np.empty_like(taken)
        scores[order] = taken
        return scores


@dataclass(frozen=True)
class Pass:
    """One of the loaders of `lightning test`.

    Attributes:
        part: Whose samples: training ones, or evaluation ones.
        group: Only those of this group (delete-a-group jackknife); None for all.
        null: Each sample's scores are another sample's, at the same `step` or `shifted` by a random number of steps.
        draw: Number of the null's random draw.

    """

    part: Literal["train", "evaluation"]
    group: int | None = None
    null: Literal["step", "shifted"] | None = None
    draw: int = 0


class Sequences(ScoreRows):
    """The training samples, and then the evaluation ones, whole and in step order: the two loaders of `lightning test`.

    Args:
        store: The store's folder (linked from the top-level `store:`).
        target: `copy_paste` (Eq. 1) or `reasoning` (Eq. 2).
        split: Which samples are training samples: static rankings and fits are theirs alone.
        evaluation: `held_out`: validation and test samples. `all`: every sample, training ones included, which leaks.
        test_store: Evaluate all samples of this other store instead.
        hidden: Read hidden states too.
        batch_size: Rows a batch; a batch's last sample is taken whole.
        num_workers: Loader processes.
        verify: Compare the store with its hashes before use.

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        evaluation: Literal["held_out", "all"] = "held_out",
        test_store: str | None = None,
        hidden: bool = False,
        batch_size: int = 4096,
        num_workers: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__(store, target, split, test_store, batch_size, num_workers=num_workers, verify=verify)
        self.evaluation, self.hidden = evaluation, hidden

    def setup(self, stage: str) -> None:
        """Open the columns and divide the samples."""
        if self.split.by != "sample":
            raise UserError("data.split.by: samples are followed from step to step here, so only `sample` will do")
        super().setup(stage)

    def part_rows(self, part: Literal["train", "evaluation"]) -> tuple[Columns, NDArray[np.int64]]:
        """Rows of the training or of the evaluation samples, ascending, and the store's columns they lie in."""
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
        """What the loaders of `lightning test` are, in order."""
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
