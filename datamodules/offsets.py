"""Score rows with the scores of every further step beside them: one pass trains a probe for each offset."""

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.columns import Columns
from datamodules.score_rows import Part, RowBatches, Rows, ScoreRows
from datamodules.splits import Split
from extract.errors import UserError
from extract.scores import Target


class OffsetBatches(RowBatches):
    """As `RowBatches`, with scores [row, offset, head] of k = 0 … `offset`; NaN where the sample ends before."""

    def read(self, rows: NDArray[np.int64]) -> Rows:
        """Rows of the store by their numbers, ascending."""
        now = super().read(rows)
        future = [self._ahead(rows, k) for k in range(self.offset + 1)]
        return now._replace(scores=torch.stack(future, dim=1))

    def _ahead(self, rows: NDArray[np.int64], k: int) -> torch.Tensor:
        sample = self.columns.sample
        later = np.minimum(rows + k, len(sample) - 1)
        scores = torch.from_numpy(self.columns.scores.take(later)).float()
        inside = (rows + k < len(sample)) & (sample[later] == sample[rows])
        scores[~torch.from_numpy(inside)] = torch.nan
        return scores


class OffsetRows(ScoreRows):
    """Rows for probes of every offset at once.

    Args:
        store, target, split, test_store, batch_size, seed, num_workers, verify: See `ScoreRows`.
        offsets: Largest k (A.4: 10).

    """

    def __init__(
        self,
        store: str = "stores/niah",
        target: Target = "copy_paste",
        split: Split = Split(),  # noqa: B008 (frozen)
        test_store: str | None = None,
        batch_size: int = 128,
        offsets: int = 10,
        seed: int = 0,
        num_workers: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__(store, target, split, test_store, batch_size, 0, seed, num_workers, verify)
        self.offsets = offsets

    @property
    def probed_target(self) -> str:
        """The target; the CLI links it into models that serve either. Under its own name any model would get it."""
        return self.target

    def setup(self, stage: str) -> None:
        """Open the columns and divide the rows; some training row must have a step that far ahead."""
        if self.offsets < 0:
            raise UserError(f"data.offsets: {self.offsets} must be at least 0")
        super().setup(stage)
        for name, rows in self._rows.items():
            if not len(self._columns[name].with_future(rows, self.offsets)):
                raise UserError(f"data.offsets {self.offsets}: no row of the {name} split has a step that far ahead")

    def batches(self, split: Part) -> RowBatches:
        """The batches of a split; training ones are shuffled anew each epoch."""
        seed = self.seed if split == "train" else None
        columns: Columns = self._columns[split]
        return OffsetBatches(columns, self._rows[split], self.offsets, self.batch_size, seed)
