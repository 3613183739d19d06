"""Whole samples in step order, for figures that follow a head from one step to the next."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.rows import Columns, Rows, ScoreRows
from datamodules.share import Share
from datamodules.splits import Split
from extract.errors import UserError


class WholeSamples(Dataset[Rows]):
    """Batches of whole samples, by batch number; the number past the last is an empty batch.

    Args:
        columns: Of the store.
        rows: Store rows of whole samples, ascending.
        batch_rows: Rows a batch, save that the last sample of a batch is taken whole.
        hidden: Read hidden states too; without them `Rows.hidden` has no columns.

    """

    def __init__(self, columns: Columns, rows: NDArray[np.int64], batch_rows: int, hidden: bool) -> None:
        self.columns, self.rows, self.hidden = columns, rows, hidden
        sample = columns.sample[rows]
        starts = np.flatnonzero(np.diff(sample, prepend=-1))
        first = np.flatnonzero(np.diff(starts // batch_rows, prepend=-1))
        self.edges = [*starts[first].tolist(), len(rows)]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.edges) - 1

    def __getitem__(self, number: int) -> Rows:
        """One batch."""
        inside = number < len(self)
        rows = self.rows[self.edges[number] : self.edges[number + 1]] if inside else self.rows[:0]
        hidden = self.columns.hidden.take(rows) if self.hidden else np.empty((len(rows), 0), np.float32)
        scores = self.columns.scores.take(rows)
        return Rows(torch.from_numpy(hidden).float(), torch.from_numpy(scores).float(), self._sample(rows))

    def _sample(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self.columns.sample[rows])


class Sequences(ScoreRows):
    """The training samples, and then the judged ones, whole and in step order: the two loaders of `lightning test`.

    Args:
        store: The store's folder (linked from the top-level `store:`).
        target: `copy_paste` (Eq. 1) or `reasoning` (Eq. 2).
        split: Which samples are training samples: static rankings and fits are theirs alone.
        judged: `held_out`: validation and test samples. `all`: every sample, training ones included, which leaks.
        test_store: Judge all samples of this other store instead.
        hidden: Read hidden states too.
        batch_size: Rows a batch; a batch's last sample is taken whole.
        num_workers: Loader processes.
        verify: Compare the store with its hashes before use.

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Literal["copy_paste", "reasoning"] = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        judged: Literal["held_out", "all"] = "held_out",
        test_store: str | None = None,
        hidden: bool = False,
        batch_size: int = 4096,
        num_workers: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__(store, target, split, test_store, batch_size, num_workers=num_workers, verify=verify)
        self.judged, self.hidden = judged, hidden

    def setup(self, stage: str) -> None:
        """Open the columns and divide the samples."""
        if self.split.by != "sample":
            raise UserError("data.split.by: samples are followed from step to step here, so only `sample` will do")
        super().setup(stage)

    def judged_rows(self) -> NDArray[np.int64]:
        """Rows of the judged samples, ascending, in the test store."""
        if self.test_path is not None:
            return self._rows["test"]
        if self.judged == "all":
            return np.arange(len(self._columns["test"].sample))
        return np.sort(np.concatenate([self._rows["val"], self._rows["test"]]))

    def whole_samples(self, part: Literal["train", "judged"]) -> WholeSamples:
        """Batches of one of the two."""
        if part == "train":
            return WholeSamples(self._columns["train"], self._rows["train"], self.batch_size, self.hidden)
        return WholeSamples(self._columns["test"], self.judged_rows(), self.batch_size, self.hidden)

    def test_dataloader(self) -> list[DataLoader[Rows]]:
        """Training samples, then judged ones."""
        assert self.trainer is not None
        loaders = []
        for part in ("train", "judged"):
            samples = self.whole_samples(part)
            share = Share(len(samples), self.trainer.global_rank, self.trainer.world_size)
            loaders.append(DataLoader(samples, batch_size=None, sampler=share, num_workers=self.num_workers))
        return loaders
